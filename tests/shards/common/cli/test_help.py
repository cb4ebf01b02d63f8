"""The text of --help: groups, names of values, defaults, and its width."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import pytest
import tyro

from shards.common.cli import Group
from shards.common.cli.help import help_text
from shards.common.cli.options import options_of
from tests.test_advice import configs
from train.config import Config
from train.recipes import RECIPES

FLAT = tyro.conf.arg(name="")


@dataclass(frozen=True)
class Rate:
    """How fast it learns."""

    momentum: float = 0.9
    """Of the optimizer."""


@dataclass(frozen=True)
class Options:
    """Does something with a place, which takes a description of more than one hundred columns to explain to people.

    And more.
    """

    place: Annotated[str | Path, tyro.conf.Positional, tyro.conf.arg(metavar="PLACE")]
    """Where."""
    data: Path
    """What."""
    batch: Annotated[int, tyro.conf.arg(name="batch-size", aliases=("--batch",))] = 64
    """Images; their number is explained at such a length that the words
    need two lines."""
    limit: int | None = None
    """Not given: none."""
    clip: float | Literal["auto"] = "auto"
    """The norm."""
    sizes: tuple[int, ...] = ()
    """Several."""
    names: tuple[str, ...] | None = None
    """Named."""
    loud: bool = False
    """Says more."""
    quick: bool = True
    """Leaves out checks."""
    log_every: Annotated[int, Group("Log")] = 20
    """Steps."""
    rate: Annotated[Rate, FLAT, Group("Learning")] = field(default_factory=Rate)
    wandb: Annotated[str | None, Group("Log")] = None
    """A project."""


def test_every_option_stands_in_its_group_with_a_readable_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert help_text(Options, "prog").splitlines()[:35] == [
        "usage: prog PLACE --data PATH [options]",
        "",
        "Does something with a place, which takes a description of more than one hundred columns to explain",
        "to people.",
        "",
        "And more.",
        "",
        "  PLACE                   Where.",
        "",
        "Options:",
        "  --data PATH             What. (required)",
        "  --batch-size N          Images; their number is explained at such a length that the words need two",
        "                          lines. (default 64)",
        "  --limit N               Not given: none.",
        "  --clip X|auto           The norm. (default auto)",
        "  --sizes N ...           Several.",
        "  --names NAME ...        Named.",
        "  --loud                  Says more.",
        "  --quick, --no-quick     Leaves out checks. (on; --no-quick turns it off)",
        "",
        "Log:",
        "  --log-every N           Steps. (default 20)",
        "  --wandb NAME            A project.",
        "",
        "Learning:",
        "  --momentum X            Of the optimizer. (default 0.9)",
        "",
        "--json, anywhere on the line, prints the result as a last line of JSON, as without a terminal.",
        "--debug, anywhere on the line, shows the traceback of an error.",
    ]


def test_defaults_are_those_of_the_value_that_is_given() -> None:
    given = Options("here", Path("there"), batch=8, loud=True, rate=Rate(0.5))
    text = help_text(Options, "prog", given)
    assert "(default 8)" in text
    assert "--no-loud" in text
    assert "(default 0.5)" in text


@pytest.mark.parametrize("columns", [80, 100, 300])
def test_no_line_is_longer_than_the_terminal_or_100_columns(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    longest = {name: max(map(len, help_text(config, name).splitlines())) for name, config in configs().items()}
    assert {name: length for name, length in longest.items() if length > min(columns, 100)} == {}


def test_every_option_of_every_command_is_explained() -> None:
    assert [(name, o.names[0]) for name, config in configs().items() for o in options_of(config) if not o.help] == []


def test_recipe_and_model_name_their_choices() -> None:
    from model import MODELS

    helps = {option.names[0]: option.help for option in options_of(Config)}
    assert [name for name in RECIPES if name not in helps["--recipe"]] == []
    assert [name for name in MODELS if name not in helps["--model"]] == []
