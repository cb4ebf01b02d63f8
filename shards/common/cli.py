"""The command line of every part of the project: parsing, exit statuses, `--debug`.

A command is a frozen dataclass and a function that takes it. `tyro` makes the options from the dataclass; this module
turns every error into one line on stderr and an exit status: 0 success, 1 failure, 2 usage, 130 interrupted.
`--debug`, anywhere on the line, shows the traceback.
"""

import contextlib
import importlib
import io
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import tyro

from shards.common.errors import ShardfeedError, UsageError
from shards.common.redact import without_secrets
from shards.common.terminal import cleaned, uncleaned

Config = TypeVar("Config")

OPTIONS = (tyro.conf.FlagCreatePairsOff,)
DEBUG_HELP = "--debug, anywhere on the line, shows the traceback of an error."
# Precedes a program's name in usage and errors. The command `shardfeed` (shards/common/command.py) sets its own.
started_as = "python -m"


@dataclass(frozen=True)
class Command:
    """A subcommand: its options (a frozen dataclass type) and the function that runs it."""

    config: type[Any]
    run: Callable[[Any], None]
    help: str


@dataclass(frozen=True)
class LazyCommand:
    """A subcommand whose module, with its `Options` and `run`, is imported when the command is chosen."""

    module: str
    help: str

    @property
    def config(self) -> type[Any]:
        options: type[Any] = importlib.import_module(self.module).Options
        return options

    @property
    def run(self) -> Callable[[Any], None]:
        run: Callable[[Any], None] = importlib.import_module(self.module).run
        return run


def parse(config: type[Config], args: Sequence[str], prog: str, default: Config | None = None) -> Config:
    """Builds `config` from command line words.

    Raises UsageError, with tyro's message on one line, for words that do not fit, SystemExit(0) after the help.
    """
    prog = _as_started(prog)
    stderr = io.StringIO()
    description = f"{config.__doc__ or ''}\n\n{DEBUG_HELP}"
    extra: dict[str, Any] = {} if default is None else {"default": default}
    try:
        with contextlib.redirect_stderr(stderr), uncleaned():
            parsed: Config = tyro.cli(
                config, args=list(args), prog=prog, description=description, config=OPTIONS, **extra
            )
            return parsed
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UsageError(f"{_one_line(stderr.getvalue())} (see {prog} --help)") from None


def run(prog: str, config: type[Config], entry: Callable[[Config], None], argv: Sequence[str] | None = None) -> int:
    """Runs a command without subcommands; returns its exit status."""
    return guarded(prog, lambda args: entry(parse(config, args, prog)), argv)


def run_commands(prog: str, commands: Mapping[str, Command | LazyCommand], argv: Sequence[str] | None = None) -> int:
    """Runs the subcommand named by the first word; returns its exit status."""
    prog = _as_started(prog)

    def dispatch(args: list[str]) -> None:
        if not args or args[0] in ("-h", "--help"):
            print(f"usage: {prog} COMMAND ...\n")
            width = max(map(len, commands))
            for name, command in commands.items():
                print(f"  {name:<{width}} {command.help}")
            print(f"\n{prog} COMMAND --help lists the options. {DEBUG_HELP}")
            if not args:
                raise UsageError(f"no command given: choose one of {', '.join(commands)}")
            return
        if args[0] not in commands:
            raise UsageError(f"unknown command {args[0]!r}: choose one of {', '.join(commands)}")
        command = commands[args[0]]
        command.run(parse(command.config, args[1:], f"{prog} {args[0]}"))

    return guarded(prog, dispatch, argv)


def guarded(prog: str, body: Callable[[list[str]], None], argv: Sequence[str] | None = None) -> int:
    """Calls `body` with the words of the command line; returns the exit status, after printing the error if any.

    All that it prints is cleaned: see shards/common/terminal.py.
    """
    with cleaned():
        return _guarded(prog, body, argv)


def _guarded(prog: str, body: Callable[[list[str]], None], argv: Sequence[str] | None) -> int:
    args = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in args
    args = [word for word in args if word != "--debug"]
    prog = _as_started(prog)
    try:
        body(args)
    except KeyboardInterrupt:
        return _fail(prog, "interrupted", 130, debug)
    except ShardfeedError as error:
        return _fail(prog, str(error), 2 if isinstance(error, UsageError) else 1, debug)
    except OSError as error:
        mistake = _path_mistake(error)
        where = "" if error.filename else f" ({_traceback_place()})"
        return _fail(prog, mistake or f"{type(error).__name__}: {error}{where}", 2 if mistake else 1, debug)
    except Exception as error:
        return _fail(prog, f"unexpected {type(error).__name__}: {error} ({_traceback_place()})", 1, debug)
    return 0


def _as_started(prog: str) -> str:
    return prog.replace("python -m", started_as)


def _fail(prog: str, message: str, status: int, debug: bool) -> int:
    if debug:
        print(traceback.format_exc(), end="", file=sys.stderr)
    print(f"{prog}: {' '.join(message.split())}", file=sys.stderr)
    return status


def _traceback_place() -> str:
    """Writes the traceback of the error being handled to a new file; returns where it is, or how to see it, in words.

    The file lies in the directory for temporary files (TMPDIR), and only its owner may read it.
    """
    try:
        file, path = tempfile.mkstemp(prefix="shardfeed-", suffix=".traceback")
        with os.fdopen(file, "w", encoding="utf-8", errors="backslashreplace") as text:
            text.write(without_secrets(traceback.format_exc()))
    except OSError:  # no directory for temporary files can be written
        return "run again with --debug for the traceback"
    return f"its traceback is in {path}, and --debug shows it"


# Parts of tyro's messages that name Python's types, and what to say instead.
_REWORDED = (
    (
        r"Error parsing (\S+): no type matching (?:\{None\}\|)?(\S+) could be instantiated from \[(.*?)\]\.?",
        r"\1 takes \2, not \3",
    ),
    (r"Error parsing (\S+): invalid literal for int\(\) with base 10: ", r"\1 takes a whole number, not "),
    (r"Error parsing (\S+): could not convert string to float: ", r"\1 takes a number, not "),
    (r"^Missing from .*?: ", "missing: "),
)
# Rows that end the message; and the column from which on a row is the help text of an option.
_ADVICE = ("For full helptext", "Argument helptext", "Got errors")
_HELP_COLUMN = 9


def _one_line(box: str) -> str:
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
    for pattern, replacement in _REWORDED:
        line = re.sub(pattern, replacement, line)
    return line


# What to say beside the path of a usual mistake: the system's message leaves open what to do.
_PATH_MISTAKES: dict[type[OSError], str] = {
    NotADirectoryError: "a part of this path is a file: give another path",
    FileExistsError: "a file is in the way of a directory: give another path",
    IsADirectoryError: "this is a directory: give the path of a file",
}


def _path_mistake(error: OSError) -> str | None:
    """The message for an error that a wrong path causes; None for other errors."""
    hint = _PATH_MISTAKES.get(type(error))
    return None if hint is None else f"{error.filename2 or error.filename}: {hint}"
