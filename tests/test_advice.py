"""Advice works: an option that a message or a help names is one of the command that prints it."""

import ast
import importlib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from shards.common.cli.options import options_of
from shards.common.cli.unknown import EXPLAINED, SYNONYMS
from tests import ROOT

# Options of Slurm's sbatch, and those that every command has.
# Of Slurm, of torchrun, and those that stand anywhere on a line.
FOREIGN = {"--array", "--standalone", "--nproc-per-node", "--debug", "--json", "--help"}
OPTION = re.compile(r"(?<![\w-])--(?:no-)?[a-z][a-z0-9-]*[a-z0-9]")
NAMED = re.compile(r"(?:python -m|shardfeed) (preprocess|shards|train|model|benchmarks)(?: ([a-z-]+))?")
GROUPS = ("shards", "model", "benchmarks")


@cache
def configs() -> dict[str, Any]:
    """The dataclass of options of every command: "train", "shards verify", ..."""
    found: dict[str, Any] = {
        "train": importlib.import_module("train.config").Config,
        "train.curves": importlib.import_module("train.curves").Options,
        "preprocess": importlib.import_module("preprocess.options").Options,
        "preprocess.synthetic": importlib.import_module("preprocess.synthetic.write").Options,
    }
    for group in GROUPS:
        for name, command in importlib.import_module(f"{group}.__main__").COMMANDS.items():
            found[f"{group} {name}"] = command.config
    return found


@cache
def commands() -> dict[str, frozenset[str]]:
    """The options of every command."""
    return {name: frozenset(s for o in options_of(config) for s in o.spellings) for name, config in configs().items()}


def own(path: Path) -> frozenset[str]:
    """The options of the commands that print the messages of a file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    command = f"benchmarks {path.stem.replace('_', '-')}"
    if parts[0] == "benchmarks" and command in commands():
        measured = commands().get(path.stem, frozenset())  # `benchmarks preprocess` names options of `preprocess`
        return commands()[command] | measured
    if parts[:2] == ("preprocess", "index"):
        return commands()["shards index"]
    if path.name == "next_steps.py":  # the commands that a finished conversion proposes
        return commands()["train"]
    if path.name == "__main__.py" or parts[0] != "shards":
        mine = [options for name, options in commands().items() if re.split(r"[ .]", name)[0] == parts[0]]
        return frozenset().union(*mine)
    return frozenset()  # the library is used by several commands, and by programs without options


def named(text: str) -> frozenset[str]:
    """The options of the commands that a text names."""
    found: frozenset[str] = frozenset()
    for program, command in NAMED.findall(text):
        found |= commands().get(program, commands().get(f"{program} {command}", frozenset()))
    return found


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """The strings of a file's code, f-strings as a whole, without docstrings; each with its line."""
    tree = ast.parse(path.read_text())
    inside: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            inside.add(id(node.value))
        if isinstance(node, ast.JoinedStr):
            inside |= {id(part) for part in node.values}
            yield (
                node.lineno,
                "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values),
            )
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield node.lineno, node.value


@pytest.mark.parametrize("package", ["shards", "preprocess", "train", "model", "benchmarks"])
def test_options_in_messages_exist(package: str) -> None:
    wrong = []
    for path in sorted((ROOT / package).rglob("*.py")):
        if path.parent.name == "cli" or path.name == "readme.py":  # what it writes, tests/test_docs.py checks
            continue
        for line, text in texts(path):
            if " " not in text:  # a word of a command line that a benchmark starts
                continue
            known = own(path) | named(text) | FOREIGN
            wrong += [f"{path.relative_to(ROOT)}:{line} {name}" for name in OPTION.findall(text) if name not in known]
    assert wrong == []


def test_options_in_helps_exist() -> None:
    wrong = []
    for name, config in configs().items():
        for option in options_of(config):
            known = commands()[name] | named(option.help) | FOREIGN
            wrong += [f"{name} {option.names[0]}: {each}" for each in OPTION.findall(option.help) if each not in known]
    assert wrong == []


def test_names_of_other_programs_lead_to_options_that_exist() -> None:
    every = frozenset().union(*commands().values())
    assert {f"--{ours}" for meant in SYNONYMS.values() for ours in meant} <= every
    assert [
        (name, option) for name in EXPLAINED for option in OPTION.findall(EXPLAINED[name]) if option not in every
    ] == []
