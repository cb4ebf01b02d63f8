"""What a command prints, made harmless: file names, class names and messages of servers come from other people.

`cleaned` stands between a command and the terminal, so that no single `print` has to think of it. Control characters,
which could colour, erase or retype lines of a terminal, are written as Python escapes: `\\x1b[31m`. Credentials are
masked as in shards/common/redact.py, and commands of this project are named as the user started this one.
"""

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from shards.common.redact import without_secrets, without_users

PROGRAMS = ("preprocess", "shards", "train", "model", "benchmarks")
# How the user started the program; the command `shardfeed` (shards/common/command.py) sets its own name.
started_as = "python -m"

# Modules inside them, such as `python -m train.curves`, have no command of their own.
_NAMED = re.compile(rf"python -m (?=(?:{'|'.join(PROGRAMS)})(?![\w.]*\w))")
CTRL_C = 4  # columns for what a terminal shows of it
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


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number of things in words: 1 file, 1,200 files. `plural`: where it is not made by an s."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def progress_bar(steps: Any = None, **options: Any) -> Any:
    """A bar of `tqdm` on stderr, with its `options`; silent where that is no terminal.

    At the right it leaves room for the ^C that a terminal shows for Ctrl-C: a full line would go on in the next one,
    and the bar be drawn there again.
    """
    from tqdm import tqdm  # not at the top: --help shows no bar

    try:
        width = os.get_terminal_size(sys.stderr.fileno()).columns - CTRL_C
    except (OSError, ValueError, AttributeError):
        width = 0
    return tqdm(steps, disable=None, ncols=width if width > 0 else None, **options)


class CleanStream:
    """A text stream that cleans what is written to it. `raw`: the stream behind it."""

    def __init__(self, raw: TextIO, mask: Callable[[str], str]) -> None:
        self.raw = raw
        self._mask = mask

    def write(self, text: str) -> int:
        """Writes `text`, cleaned; the moves of a progress bar at its beginning stay."""
        moves = _MOVES.match(text)
        begin = moves.end() if moves else 0
        self.raw.write(text[:begin] + escaped(self._mask(as_started(text[begin:]))))
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        """Writes each of `lines`."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)


@contextlib.contextmanager
def cleaned() -> Iterator[None]:
    """Cleans all that Python prints in the block.

    On stdout only users in URLs are masked: programs read it, and the value of a variable like KEY_DIR may be a part of
    a path there.
    """
    stdout: Any = CleanStream(sys.stdout, without_users)
    stderr: Any = CleanStream(sys.stderr, without_secrets)
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        yield
