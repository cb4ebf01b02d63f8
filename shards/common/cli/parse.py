"""Words of a command line become a frozen dataclass, by `tyro`; what does not fit becomes one line."""

import contextlib
import io
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro

from shards.common.cli.help import help_text
from shards.common.cli.options import Option, options_of
from shards.common.cli.unknown import stray_word, unknown_options
from shards.common.errors import UsageError
from shards.common.terminal import as_started, wrapped

Config = TypeVar("Config")

HELP = ("-h", "--help")


def parse(config: type[Config], args: Sequence[str], prog: str, default: Config | None = None) -> Config:
    """Builds `config` from command line words.

    default: holds the values of the options that are not given, in place of the fields' own.
    Raises UsageError, in one line, for words that do not fit; SystemExit(0) after printing the help.
    """
    prog = as_started(prog)
    if set(HELP) & set(args):
        print(as_started(help_text(config, prog, default)))
        raise SystemExit(0)
    options = list(options_of(config, default))
    see = f" (see {prog} --help)"
    if unknown := unknown_options(args, options, HELP):
        raise UsageError(" ".join(unknown) + see)
    if stray := stray_word(args, options):
        raise UsageError(stray + see)
    _say_new_names(args, options)
    extra: dict[str, Any] = {} if default is None else {"default": default}
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            parsed: Config = tyro.cli(config, args=[_at_home(word) for word in args], prog=prog, **extra)
            return parsed
    except SystemExit:
        raise UsageError(_one_line(_COLOUR.sub("", box.getvalue()), options) + see) from None


def _say_new_names(args: Sequence[str], options: Sequence[Option]) -> None:
    """Old names of options, which the help does not list, still work; a line on stderr has the new one of each."""
    if os.environ.get("RANK", "0") != "0":
        return
    given = [word.partition("=")[0].replace("_", "-") for word in args if word.startswith("--")]
    for option in options:
        for old in set(given) & set(option.names[1:]):
            print(wrapped(f"{old} is now {option.names[0]}, and still works", sys.stderr), file=sys.stderr)


def _at_home(word: str) -> str:
    """`word` with a path's ~ expanded; shells do not expand that of `--data=~/x`."""
    name, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    return f"{name}{equals}{Path(value).expanduser()}" if value.startswith(("~/", "~")) else word


# What tyro puts around words where stdout is a terminal.
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# Rows that end the message; and the column from which on a row is the help text of an option.
_ADVICE = ("For full helptext", "Argument helptext", "Got errors")
_HELP_COLUMN = 9
# What tyro says of a value that does not fit, and of the option whose value it is.
_BAD_VALUE = (
    re.compile(r"Error parsing (?P<name>\S+): .*from \[(?P<value>.*?)\]"),
    re.compile(r"Error parsing (?P<name>\S+): .*: (?P<value>'.*')"),
    re.compile(r"invalid choice (?P<value>'.*') for argument '(?P<name>\S+)'"),
    re.compile(r"Missing value for argument '(?P<name>\S+)'"),
)


def _one_line(box: str, options: Sequence[Option]) -> str:
    """A message that tyro drew in a box, on one line, without its title, help texts and advice."""
    words = []
    for row in box.strip().splitlines()[1:]:  # the first holds the title
        text = row.strip("│|").rstrip()  # plain characters where the terminal knows no others
        if text.strip().startswith(_ADVICE):
            break
        if not text.strip(" ─-╰╯+") or len(text) - len(text.lstrip()) >= _HELP_COLUMN:
            continue
        words.append(text.strip())
    line = " ".join(words)
    if re.match(r"Missing from ", line):
        missing = [option for option in options if option.required and re.search(_named(option), line)]
        return "missing: " + " and ".join(
            each.names[0] if each.positional else f"{each.names[0]} {each.metavar}" for each in missing
        )
    for pattern in _BAD_VALUE:
        if found := pattern.match(line):
            named = found["name"].split("/")
            takes = next((each.takes for each in options if set(named) & set(each.names)), "another value")
            given = f", not {found['value']}" if "value" in found.groupdict() else ", and nothing follows it"
            return f"{found['name'].split('/')[-1]} takes {takes}{given}"
    return re.sub(r"^Unrecognized options: ", "too many words: ", line)


def _named(option: Option) -> str:
    return rf"(?<!\S){re.escape(option.names[0])}(?!\S)"
