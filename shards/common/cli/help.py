"""The text that `--help` prints: usage, what the command does, and its options in groups."""

import dataclasses
import inspect
import shutil
import textwrap
from typing import Any

from shards.common.cli.options import Option, options_of

MOST_COLUMNS = 100
# The column in which the helps of options begin; a longer name stands on a line of its own.
COLUMN = 26
DEBUG_HELP = "--debug, anywhere on the line, shows the traceback of an error."
ENDING = "--json, anywhere on the line, prints the result as a last line of JSON, as without a terminal. " + DEBUG_HELP


def help_text(config: Any, prog: str, default: Any = None) -> str:
    """The help of a command, at most MOST_COLUMNS wide."""
    width = min(shutil.get_terminal_size().columns, MOST_COLUMNS)
    options = list(options_of(config, default))
    paragraphs = [
        textwrap.fill(f"usage: {prog} {_usage(options)}", width, subsequent_indent="  ", break_on_hyphens=False),
        *(_filled(paragraph, width) for paragraph in inspect.cleandoc(config.__doc__ or "").split("\n\n")),
    ]
    positional = [option for option in options if option.positional]
    groups: dict[str, list[Option]] = {}
    for option in options:
        if not option.positional:
            groups.setdefault(option.group, []).append(option)
    if positional:
        paragraphs.append(_section("", positional, width))
    paragraphs += [_section(title or "Options", each, width) for title, each in groups.items()]
    return "\n\n".join([*paragraphs, _filled(ENDING, width)])


def _usage(options: list[Option]) -> str:
    named = [f"{option.names[0]} {option.metavar}" for option in options if option.required and not option.positional]
    positional = [option.metavar for option in options if option.positional]
    return " ".join([*positional, *named, "[options]"])


def _filled(text: str, width: int) -> str:
    return textwrap.fill(" ".join(text.split()), width, break_on_hyphens=False, break_long_words=False)


def _section(title: str, options: list[Option], width: int) -> str:
    return "\n".join([*([f"{title}:"] if title else []), *(_row(option, width) for option in options)])


def _row(option: Option, width: int) -> str:
    name = option.names[0]
    if not option.positional:
        name += f", {_turned_off(option)}" if option.default is True else f" {option.metavar}".rstrip()
    text = f"{option.help} {_default(option)}".strip()
    lines = textwrap.wrap(text, width - COLUMN, break_on_hyphens=False, break_long_words=False)
    first = f"  {name}"
    if len(first) <= COLUMN - 2 and lines:
        first = first.ljust(COLUMN) + lines.pop(0)
    return "\n".join([first, *(" " * COLUMN + line for line in lines)])


def _turned_off(option: Option) -> str:
    return f"--no-{option.names[0].removeprefix('--')}"


def _default(option: Option) -> str:
    """What holds if the option is not given, where the help does not say that itself."""
    value = option.default
    if option.required:
        return "" if option.positional else "(required)"
    if value is True:
        return f"(on; {_turned_off(option)} turns it off)"
    if value is None or value is False or value == ():
        return ""
    if isinstance(value, tuple):
        return f"(default {' '.join(map(str, value))})"
    return f"(default {value})" if not dataclasses.is_dataclass(value) else ""
