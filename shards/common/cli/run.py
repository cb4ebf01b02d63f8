"""Runs a command: every error becomes one line on stderr and an exit status, the result a line of JSON for programs."""

import contextlib
import errno
import importlib
import os
import select
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from shards.common.atomic import PART
from shards.common.cli.help import ENDING
from shards.common.cli.parse import HELP, parse
from shards.common.cli.result import json_wanted
from shards.common.cli.traceback_file import traceback_place
from shards.common.cli.warned import warnings_in_lines
from shards.common.errors import ShardfeedError, UsageError
from shards.common.signals import interrupts_raise
from shards.common.terminal import PROGRAMS, as_started, cleaned, to_nowhere, wrapped
from shards.common.versions import version

Config = TypeVar("Config")

# Exit status of a program whose reader has closed the pipe: 128 and the number of SIGPIPE, as shells show it.
PIPE_CLOSED = 141

DEBUG, JSON = ANYWHERE = ("--debug", "--json")


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


def run(prog: str, config: type[Config], entry: Callable[[Config], None], argv: Sequence[str] | None = None) -> int:
    """Runs a command without subcommands; returns its exit status."""
    return guarded(prog, lambda args: entry(parse(config, args, prog)), argv)


def run_commands(prog: str, commands: Mapping[str, Command | LazyCommand], argv: Sequence[str] | None = None) -> int:
    """Runs the subcommand named by the first word; returns its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    named = next((word for word in words if word not in ANYWHERE), "")

    def dispatch(args: list[str]) -> None:
        if chosen(prog, {name: command.help for name, command in commands.items()}, args):
            command = commands[args[0]]
            command.run(parse(command.config, args[1:], f"{prog} {args[0]}"))

    return guarded(f"{prog} {named}" if named in commands else prog, dispatch, words)


def chosen(prog: str, commands: Mapping[str, str], args: Sequence[str]) -> bool:
    """Whether the first word names one of `commands` (names with their helps); prints the list of them for --help.

    Raises UsageError where the first word is none, or lacks.
    """
    if args and args[0] in commands:
        return True
    names = ", ".join(commands)
    if args and args[0] not in HELP:
        raise UsageError(f"unknown command {args[0]!r}: choose one of {names}")
    width = max(map(len, commands))
    rows = [wrapped(f"  {name:<{width}}  {purpose}", hang=width + 4) for name, purpose in commands.items()]
    print("\n".join([f"usage: {as_started(prog)} COMMAND ...", "", *rows, ""]))
    print(wrapped(f"{as_started(prog)} COMMAND --help lists the options; --version prints the version."))
    print(wrapped(ENDING))
    if not args:
        raise UsageError(f"no command given: choose one of {names}")
    return False


def guarded(prog: str, body: Callable[[list[str]], None], argv: Sequence[str] | None = None) -> int:
    """Calls `body` with the words of the command line; returns the exit status, after printing the error if any.

    --debug and --json may stand anywhere. All that is printed is cleaned: see shards/common/terminal.py.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    words = [word for word in args if word not in ANYWHERE]
    interrupts_raise()
    try:
        with cleaned(), json_wanted(JSON in args), warnings_in_lines():
            return _guarded(as_started(prog), body, words, DEBUG in args)
    except BrokenPipeError:
        if not _reader_gone():
            raise
        return PIPE_CLOSED
    except ShardfeedError:  # stderr itself cannot be written
        return 1


def _guarded(prog: str, body: Callable[[list[str]], None], args: list[str], debug: bool) -> int:
    try:
        if "--version" in args:
            print(f"shardfeed {version('shardfeed')}")
        else:
            _to_the_end(body, args)
        sys.stdout.flush()
    except KeyboardInterrupt as stopped:  # with a message where a command has more to say
        return _fail(prog, str(stopped) or "interrupted", 130, debug)
    except ShardfeedError as error:
        return _fail(prog, str(error), 2 if isinstance(error, UsageError) else 1, debug)
    except OSError as error:
        if isinstance(error, BrokenPipeError) and _reader_gone():
            return PIPE_CLOSED
        status = 2 if type(error) in _PATH_MISTAKES else 1
        return _fail(prog, _of_a_path(error) or f"{type(error).__name__}: {error} ({traceback_place()})", status, debug)
    except Exception as error:
        if hidden := _hidden():
            return _fail(prog, hidden, 2, debug)
        return _fail(prog, f"unexpected {type(error).__name__}: {error} ({traceback_place()})", 1, debug)
    return 0


def _to_the_end(body: Callable[[list[str]], None], args: list[str]) -> None:
    """Calls `body`; help leaves it by SystemExit, and what it printed has to arrive too."""
    try:
        body(args)
    except SystemExit:
        sys.stdout.flush()
        raise


def _fail(prog: str, message: str, status: int, debug: bool) -> int:
    if debug:
        print(traceback.format_exc(), end="", file=sys.stderr)
    print(wrapped(f"{prog}: {' '.join(message.split())}", sys.stderr), file=sys.stderr)
    sys.stdout.flush()  # where the reader has gone, this says so while it can be answered
    return status


def _reader_gone() -> bool:
    """Whether stdout or stderr is a pipe that nobody reads any more; what it still gets then goes nowhere."""
    gone = []
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # no file behind it
            pipe = select.poll()
            pipe.register(stream.fileno(), 0)
            gone += [number for number, event in pipe.poll(0) if event & select.POLLERR]
    for number in gone:
        to_nowhere(number)
    return bool(gone)


def _hidden() -> str | None:
    """What to say where a module of the user's own, found first in the working directory, hides one of ours."""
    ours = Path(__file__).parents[3]
    for name in PROGRAMS:
        file = getattr(sys.modules.get(name), "__file__", None)
        if file and ours not in Path(file).resolve().parents:
            return (
                f"{file} hides this project's package {name}, because Python looks into the working directory first: "
                "start the command `shardfeed` in place of `python -m`, or work in another directory"
            )
    return None


# What to say beside the path of a usual mistake: the system's message leaves open what to do.
_PATH_MISTAKES: dict[type[OSError], str] = {
    NotADirectoryError: "a part of this path is a file: give another path",
    FileExistsError: "a file is in the way of a directory: give another path",
    IsADirectoryError: "this is a directory: give the path of a file",
}
# Failures, which may come in the midst of the work.
_PATH_FAILURES: dict[int, str] = {
    errno.EACCES: "this user has no permission there: give another path, or change its permissions",
    errno.EPERM: "the system does not allow that there: give another path",
    errno.EROFS: "this disk is read-only: give another path",
    errno.ENOENT: "no such file or directory: check the path",
    errno.ENOSPC: "no space is left on this disk: free some, or give another path",
    errno.EDQUOT: "this user's quota is used up: free some space, or give another path",
}


def _of_a_path(error: OSError) -> str | None:
    """The message for an error that names a path, in words; None for others."""
    path = error.filename2 or error.filename
    if not isinstance(path, str | Path):
        return None
    hint = _PATH_MISTAKES.get(type(error))
    if hint is None and error.errno and error.strerror == os.strerror(error.errno):  # not a reason of our own
        hint = _PATH_FAILURES.get(error.errno)
    return f"{str(path).removesuffix(PART)}: {hint or error.strerror or error}"
