"""What a command prints, made harmless: file names, class names and messages of servers come from other people.

`cleaned` stands between a command and the terminal, so that no single `print` has to think of it. Control characters,
which could colour, erase or retype lines of a terminal, are written as Python escapes: `\\x1b[31m`. Credentials are
masked as in shards/common/redact.py, and commands of this project are named as the user started this one.
"""

import contextlib
import os
import re
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TextIO

from shards.common.errors import ShardfeedError
from shards.common.redact import without_secrets, without_users

PROGRAMS = ("preprocess", "shards", "train", "model", "benchmarks")
# How the user started the program; the command `shardfeed` (shards/common/command.py) sets its own name.
started_as = "python -m"

# Whether a command runs: `cleaned` sets it.
_command_runs = False
# The line on a terminal that `saying` takes away again, "" for none.
_shown = ""

# Modules inside them, such as `python -m train.curves`, have no command of their own.
_NAMED = re.compile(rf"python -m (?=(?:{'|'.join(PROGRAMS)})(?![\w.]*\w))")
# Each with its seconds, and digits behind the point; the last one serves however long it takes.
UNITS_OF_TIME = (("s", 1.0, 0), ("min", 60.0, 0), ("h", 3600.0, 1))
MOST_OF_A_UNIT = 90
CTRL_C = 4  # columns for what a terminal shows of it
# Where stderr is no terminal: seconds from the beginning of long work to its first line, and from each to the next.
FIRST_LINE_S, NEXT_LINE_S = 60.0, 300.0
# All control characters but tab and newline; marks that turn the direction of text; halves of surrogate pairs, which
# stand for bytes of file names that are no UTF-8.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
# Progress bars begin a line again, and move up and down.
_MOVES = re.compile("(?:\r|\n|\x1b\\[A)*")


def escaped(text: str) -> str:
    """`text` with its control characters as Python escapes; tabs and ends of lines stay."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def as_started(text: str) -> str:
    """`text`, in which `python -m train` and the like are named as the user started this program."""
    return _NAMED.sub(f"{started_as} ", text)


def advice(argument: str, option: str) -> str:
    """What to change, in a message of the library: `option` while a command runs, else `argument`.

    So a program of the user's own is told `batch_size`, and a command line `python -m train --batch-size`.
    """
    return option if _command_runs else argument


def cache_moves(what: str = "it") -> str:
    """What moves the cache of remote shards elsewhere, in a message."""
    return f"XDG_CACHE_HOME, or {advice('Cache(directory)', '`python -m train --cache-dir`')}, moves {what}"


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number of things in words: 1 file, 1,200 files. `plural`: where it is not made by an s."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def some(names: Sequence[str], most: int = 4) -> str:
    """The first of these names, and dots where there are more."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def unit_of_time(seconds: float) -> tuple[str, float, int]:
    """The unit in which people say so many seconds: its name, its length in seconds, and digits behind the point."""
    return next((unit for unit in UNITS_OF_TIME if seconds < MOST_OF_A_UNIT * unit[1]), UNITS_OF_TIME[-1])


def duration(seconds: float) -> str:
    """A time for people: 45 s, 12 min, 3.5 h."""
    unit, length, digits = unit_of_time(seconds)
    return f"{seconds / length:.{digits}f} {unit}"


def progress_bar(steps: Any = None, unit: str = "steps", **options: Any) -> Any:
    """A bar of `tqdm` on stderr, with its `options`; silent where that is no terminal. `unit`: what it counts.

    At the right it leaves room for the ^C that a terminal shows for Ctrl-C: a full line would go on in the next one,
    and the bar be drawn there again.
    """
    from tqdm import tqdm  # not at the top: --help shows no bar

    try:
        width = os.get_terminal_size(sys.stderr.fileno()).columns - CTRL_C
    except (OSError, ValueError, AttributeError):
        width = 0
    # tqdm sets the unit right behind a number: 160images.
    return tqdm(steps, disable=None, ncols=width if width > 0 else None, unit=f" {unit}", **options)


class LogLines:
    """When a log is to get a line of progress: where stderr is no terminal, and `wanted`."""

    def __init__(self, wanted: bool = True, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._due_at = now() + FIRST_LINE_S if wanted and not sys.stderr.isatty() else None

    def due(self) -> bool:
        """Whether a line is to be printed now; asking begins the time until the next one."""
        if self._due_at is None or self._now() < self._due_at:
            return False
        self._due_at = self._now() + NEXT_LINE_S
        return True


class ProgressLog:
    """Lines of a log in place of a command's bar over images. `total`: how many there are, None if unknown."""

    def __init__(self, total: int | None, now: Callable[[], float] = time.monotonic) -> None:
        self._total, self._now, self._began = total, now, now()
        self._lines = LogLines(_command_runs, now)
        self._done, self._found = 0, 0

    def advance(self, images: int, found: int = 0) -> None:
        """After work on so many more images, and others that were `found` done: prints a line, if one is due."""
        self._done += images
        self._found += found
        if self._lines.due():
            print(self._line(), file=sys.stderr, flush=True)

    def _line(self) -> str:
        done, seconds = self._done + self._found, self._now() - self._began
        rate = (self._done or self._found) / seconds  # those that were found done count as speed only among themselves
        of = "" if self._total is None else f" of {self._total:,}"
        left = f", about {duration((self._total - done) / rate)} left" if self._total and rate else ""
        return f"{done:,}{of} images: {rate:,.{0 if rate >= 10 else 1}f} images/s{left}"


@contextlib.contextmanager
def saying(line: str, wanted: bool = True) -> Iterator[None]:
    """Shows a line on stderr for as long as the block runs; in a log it stays. `wanted`: else nothing is shown.

    What a command prints meanwhile takes its place.
    """
    global _shown
    on_terminal = wanted and sys.stderr.isatty()
    if wanted:
        print(line, end="" if on_terminal else "\n", file=sys.stderr, flush=True)
    _shown = line if on_terminal else ""
    try:
        yield
    finally:
        _erase()


def _erase() -> None:
    """Takes the line that `saying` shows from the terminal."""
    global _shown
    line, _shown = _shown, ""
    if line:
        for part in ("\r", " " * len(line), "\r"):
            sys.stderr.write(part)
        sys.stderr.flush()


def doing(what: str) -> contextlib.AbstractContextManager[None]:
    """While a command runs: shows "WHAT ..." as long as the block takes. A program of the user's own shows nothing."""
    return saying(f"{what} ...", _command_runs)


def wrapped(line: str, stream: TextIO | None = None, hang: int = 0) -> str:
    """A line for `stream`, by default stdout; for a terminal broken between words, but in no command in backticks.

    hang: spaces before the lines after the first. In a log a line stays whole, so that it can be searched.
    """
    stream = sys.stdout if stream is None else stream
    if not stream.isatty():
        return line
    try:
        width = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        return line
    whole = re.sub("`[^`]*`", lambda command: command[0].replace(" ", "\0"), as_started(line))
    broken = textwrap.fill(
        whole, max(width, 20), subsequent_indent=" " * hang, break_long_words=False, break_on_hyphens=False
    )
    return broken.replace("\0", " ")


class CleanStream:
    """A text stream that cleans what is written to it. `raw`: the stream behind it, which messages call `name`.

    Raises ShardfeedError where a disk is full or fails; BrokenPipeError stays what it is.
    """

    def __init__(self, raw: TextIO, name: str, mask: Callable[[str], str]) -> None:
        self.raw = raw
        self._name, self._mask = name, mask

    def write(self, text: str) -> int:
        """Writes `text`, cleaned; the moves of a progress bar at its beginning stay."""
        _erase()
        moves = _MOVES.match(text)
        begin = moves.end() if moves else 0
        clean = text[:begin] + escaped(self._mask(as_started(text[begin:])))
        with self._failing():
            self.raw.write(clean)
        return len(text)

    def flush(self) -> None:
        """Hands on what is buffered."""
        with self._failing():
            self.raw.flush()

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            raise
        except OSError as error:
            with contextlib.suppress(OSError, ValueError):
                to_nowhere(self.raw.fileno())  # or Python would fail again at its end, with the rest of the buffer
            raise ShardfeedError(f"{self._name} cannot be written: {error.strerror or error}") from error

    def writelines(self, lines: list[str]) -> None:
        """Writes each of `lines`."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)


def to_nowhere(number: int) -> None:
    """What is written to a file descriptor from now on goes nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)


@contextlib.contextmanager
def cleaned() -> Iterator[None]:
    """Cleans all that Python prints in the block.

    On stdout only users in URLs are masked: programs read it, and the value of a variable like KEY_DIR may be a part of
    a path there.
    """
    global _command_runs
    before, _command_runs = _command_runs, True
    stdout: Any = CleanStream(sys.stdout, "stdout", without_users)
    stderr: Any = CleanStream(sys.stderr, "stderr", without_secrets)
    try:
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            yield
    finally:
        _command_runs = before
