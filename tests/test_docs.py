"""The documents say what is: commands parse, options exist, code runs, links lead somewhere. `make docs-check`

Nothing is downloaded and no command is run: each is parsed by the program that it calls. Python in the README, and
blocks with `<!-- runs -->` before them, are run on a small data set that stands for /data/imagenet.
"""

import ast
import contextlib
import dataclasses
import importlib.util
import inspect
import io
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from preprocess.job.task import Rejected
from shards.common.cli import Command as Subcommand
from shards.common.cli import parse
from shards.common.errors import UsageError
from shards.dataset import open_dataset
from shards.format.index import DTYPES
from shards.format.layout import Encoding
from shards.format.manifest import IndexInfo, Manifest, Settings, ShardInfo, SplitInfo
from shards.format.ppm import ppm
from shards.format.verify import verify
from tests import ROOT
from tests.conftest import decoded, jpeg, photo, write_split
from tests.helpers.docs import (
    Block,
    Command,
    anchors,
    blocks,
    commands,
    documents,
    inline_code,
    links,
    text_of,
    words_of,
)

# What documents write for a value of the reader's own.
PLACES = {"R": "cnn", "N": "1", "X": "1000", "i/n": "0/8"}
# Options of other programs, in sentences; those of torchrun are known.
FOREIGN = {"--array", "--wrap", "--editable", "--extra-index-url", "--help"}

Parser = Callable[[list[str]], object]


def _plain(module: str, config: str) -> Parser:
    def parser(words: list[str]) -> object:
        options = getattr(importlib.import_module(module), config)
        return parse(options, words, module)

    return parser


def _train(words: list[str]) -> object:
    from train.__main__ import parse_config

    return parse_config(words)


def _subcommands(module: str) -> Parser:
    def parser(words: list[str]) -> object:
        known: Mapping[str, Subcommand] = importlib.import_module(module).COMMANDS
        if not words:
            return known
        if words[0] not in known:
            raise UsageError(f"unknown command {words[0]!r}: choose one of {', '.join(known)}")
        return parse(known[words[0]].config, words[1:], words[0])

    return parser


PROGRAMS: dict[str, Parser] = {
    "preprocess": _plain("preprocess.options", "Options"),
    "preprocess.synthetic": _plain("preprocess.synthetic", "Options"),
    "shards": _subcommands("shards.__main__"),
    "model": _subcommands("model.__main__"),
    "benchmarks": _subcommands("benchmarks.__main__"),
    "train": _train,
}


def check(command: Command) -> None:
    """Raises UsageError, or fails, for a command that its program would refuse as a mistake."""
    words = words_of(re.sub(r"^([A-Z_]+=\S*\s+)*", "", command.text))
    # What is left out in a sentence, or by dots, may be missing.
    partial = not command.whole or "..." in words
    words = [word for word in words if word != "..."]
    program = words[0]
    if program == "make":
        _check_make(words[1:])
    elif program == "sbatch":
        _check_batch(words[1:], command)
    elif program == "pip":
        _check_extras(command.text)
    elif program in ("python", "torchrun", "pytest"):
        if program == "torchrun":
            _torchrun().parse_args(words[1:])
        _check_python(words[1:] if program != "pytest" else ["-m", *words], partial)


def _check_python(words: list[str], partial: bool) -> None:
    if words[:1] == ["-c"]:
        ast.parse(words[1])
        return
    module, rest = words[words.index("-m") + 1], words[words.index("-m") + 2 :]
    if module == "pytest":
        for word in rest:
            assert not word.startswith("tests/") or (ROOT / word.partition("::")[0]).exists(), f"there is no {word}"
        return
    if module not in PROGRAMS:
        assert importlib.util.find_spec(module) is not None, f"there is no {module}"
        return
    values = [PLACES.get(word, re.sub(r"\$\{?\w+\}?", "0", word)) for word in rest if word != "--debug"]
    if partial and not values:
        return
    try:
        PROGRAMS[module](values)
    except UsageError as error:
        if not (partial and str(error).startswith("missing")):
            raise
    except SystemExit as stop:  # --help
        if stop.code:
            raise


def _check_make(words: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for word in words:
        name, is_variable, _ = word.partition("=")
        pattern = rf"^{name} [?:]?=" if is_variable else rf"^{re.escape(name)}:"
        assert re.search(pattern, makefile, re.MULTILINE), f"the Makefile has no {name}"


def _check_batch(words: list[str], command: Command) -> None:
    """The scripts exist, and what --wrap holds is a command of ours."""
    for i, word in enumerate(words):
        if word == "--wrap":
            check(dataclasses.replace(command, text=words[i + 1]))
        assert not word.endswith(".sh") or (ROOT / word).exists(), f"there is no {word}"


def _check_extras(text: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for extra in re.findall(r"shardfeed\[(\w+)\]", text):
        assert extra in project["optional-dependencies"], f"there is no extra [{extra}]"


@cache
def _torchrun() -> Any:
    from torch.distributed.run import get_args_parser

    return get_args_parser()


@cache
def known_options() -> frozenset[str]:
    """Every option of every command of ours, and of torchrun."""
    from train.config import Config

    configs: list[Any] = [Config]
    for module in ("shards", "model", "benchmarks"):
        configs += [each.config for each in importlib.import_module(f"{module}.__main__").COMMANDS.values()]
    configs += [importlib.import_module(f"preprocess.{name}").Options for name in ("options", "synthetic")]
    found = {option for action in _torchrun()._actions for option in action.option_strings}
    for config in configs:
        text = io.StringIO()
        with contextlib.redirect_stdout(text), pytest.raises(SystemExit):
            parse(config, ["--help"], "")
        found |= set(re.findall(r"--[a-z][a-z0-9-]*", text.getvalue()))
    return frozenset(found | FOREIGN)


def _all(of: Callable[[Path], Iterator[Any]]) -> list[Any]:
    return [each for document in documents() if document.exists() for each in of(document)]


# Two commands may stand on one line: their order has to be the same in every process of a parallel run.
COMMANDS = sorted(set(_all(commands)), key=lambda command: (command.place, str(command)))


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: f"{command.place} {command.text[:60]}")
def test_a_command_is_one_that_its_program_takes(command: Command) -> None:
    check(command)


@pytest.mark.parametrize(
    "text",
    [
        "python -m train --data DIR --no-such-option 1",
        "python -m train --data DIR --recipe no-such-recipe",
        "python -m shards verify",
        "python -m shards nothing DIR",
        "python -m preprocess SOURCE OUT --order backwards",
        "python -m no_such_module",
        "python -m pytest tests/test_nothing.py",
        "OMP_WAIT_POLICY=PASSIVE python -m train --data DIR --batch many",
        "make nowhere",
        "make install DALY=cuda12",
        "pip install 'shardfeed[nothing]'",
        "sbatch docs/slurm/nothing.sh",
        "sbatch --array=0-7 --wrap 'python -m preprocess SOURCE'",
    ],
)
def test_a_wrong_command_is_found(text: str) -> None:
    with pytest.raises((UsageError, AssertionError)):
        check(Command("here", text, whole=True))


@pytest.mark.parametrize("document", documents(), ids=lambda document: document.name)
def test_options_in_sentences_exist(document: Path) -> None:
    named = [
        (place, word) for place, code in inline_code(document) for word in re.findall(r"(?<!\S)--[a-z][\w-]*", code)
    ]
    assert [f"{place} {word}" for place, word in named if word not in known_options()] == []


@pytest.mark.parametrize("document", documents(), ids=lambda document: document.name)
def test_links_lead_somewhere(document: Path) -> None:
    broken = []
    for place, target in links(document):
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        there = (document.parent / path).resolve() if path else document
        if not there.exists() or (anchor and anchor not in anchors(there)):
            broken.append(f"{place} {target}")
    assert broken == []


@pytest.mark.parametrize("document", documents(), ids=lambda document: document.name)
def test_files_and_tests_that_are_named_exist(document: Path) -> None:
    absent = []
    for place, code in inline_code(document):
        for path, name in re.findall(
            r"(?<![\w/.])((?:shards|preprocess|train|model|benchmarks|tests|docs)/[\w./-]+\.(?:py|md|sh))(?:::(\w+))?",
            code,
        ):
            if "NAME" in path:  # of a file that a reader is to write
                continue
            if not (ROOT / path).exists() or (name and f"def {name}(" not in (ROOT / path).read_text()):
                absent.append(f"{place} {code}")
    assert absent == []


def test_the_loaders_arguments_are_all_described() -> None:
    from shards import Loader

    described = {word for _, code in inline_code(ROOT / "docs" / "loader.md") for word in re.findall(r"\w+", code)}
    assert set(inspect.signature(Loader).parameters) - described == set()


def test_the_fields_of_the_format_are_all_described() -> None:
    classes = (Manifest, Settings, SplitInfo, ShardInfo, IndexInfo, Rejected)
    fields = {field.name for each in classes for field in dataclasses.fields(each)} | {*DTYPES, "key"}
    described = {code for _, code in inline_code(ROOT / "docs" / "format.md")}
    assert fields - described == set()


def test_every_document_can_be_reached_from_the_readme() -> None:
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        document = waiting.pop()
        reached.add(document)
        targets = {(document.parent / target.partition("#")[0]).resolve() for _, target in links(document)}
        waiting += [target for target in targets - reached if target.suffix == ".md" and target.exists()]
    assert [str(document.relative_to(ROOT)) for document in documents() if document not in reached] == []


def test_no_document_names_a_machine_of_ours() -> None:
    assert [
        document.name for document in documents() if re.search(r"(?<!\w)/(work|root|home)/", text_of(document))
    ] == []


PYTHON = [
    block for document in documents() if document.exists() for block in blocks(document) if block.language == "python"
]


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: f"{block.document.name}:{block.line}")
def test_python_compiles(block: Block) -> None:
    compile(block.text, f"{block.document.name}:{block.line}", "exec")


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """256 training and 70 validation images of 256 pixels, of 8 pictures, in shards of 50."""
    root = tmp_path_factory.mktemp("imagenet")
    pictures = [jpeg(photo(256, 256 + 4 * i, seed=i)) for i in range(8)]
    parts = [
        write_split(root, [pictures[i % 8] for i in range(count)], short_side=256, shard_size=50, name=name).manifest
        for name, count in (("train", 256), ("validation", 70))
    ]
    splits = {name: info for part in parts for name, info in part.splits.items()}
    dataclasses.replace(parts[0], splits=splits).write(root)
    return root


def run(document: Path, data: Path) -> dict[str, Any]:
    """Runs the blocks of a document one after the other; returns the names that they left."""
    names: dict[str, Any] = {"__name__": document.name}
    for block in blocks(document):
        if block.language == "python" and (block.runs or document.name == "README.md"):
            text = "\n" * (block.line - 1) + block.text.replace("/data/imagenet", str(data))
            exec(compile(text, str(document), "exec"), names)
    return names


RUNNING = {block.document: None for block in PYTHON if block.runs or block.document.name == "README.md"}


@pytest.mark.parametrize("document", RUNNING, ids=lambda document: document.name)
def test_python_runs(document: Path, imagenet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(document, imagenet)


@pytest.mark.parametrize("encoding", ["jpeg", "raw"])
def test_the_reader_of_the_format_reads_every_sample(encoding: Encoding, tmp_path: Path) -> None:
    pixels = [decoded(jpeg(photo(40, 40 + i, seed=i))) for i in range(9)]
    files = [jpeg(image) if encoding == "jpeg" else ppm(image) for image in pixels]
    split = write_split(tmp_path / "data", files, short_side=40, shard_size=4, encoding=encoding)
    read = run(ROOT / "docs" / "format.md", tmp_path / "data")["read"]
    found = list(read(str(tmp_path / "data"), "train"))
    assert [(key, image, label) for key, image, label, _, _ in found] == [
        (f"{row:08d}", file, int(split.labels[row])) for row, file in enumerate(files)
    ]


def test_what_the_writer_of_the_format_writes_is_a_whole_data_set(tmp_path: Path, imagenet: Path) -> None:
    write = run(ROOT / "docs" / "format.md", imagenet)["write"]
    images = [jpeg(photo(40, 44, seed=i)) for i in range(7)]
    write(
        str(tmp_path / "data"),
        "train",
        [(image, i % 3, 44, 40) for i, image in enumerate(images)],
        ["a", "b", "c"],
        40,
        3,
    )
    assert verify(tmp_path / "data", decode=True).problems == ()
    split = open_dataset(tmp_path / "data")["train"]
    assert (len(split), len(split.info.shards), split.class_names) == (7, 3, ("a", "b", "c"))
