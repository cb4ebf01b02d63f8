"""What a command prints, made harmless: file names, class names and messages of servers come from other people.

`cleaned` stands between a command and the terminal, so that no single `print` has to think of it. Control characters,
which could colour, erase or retype lines of a terminal, are written as Python escapes: `\\x1b[31m`. Credentials are
masked as in shards/common/redact.py.
"""

import contextlib
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from shards.common.redact import without_secrets, without_users

# All control characters but tab and newline; marks that turn the direction of text; halves of surrogate pairs, which
# stand for bytes of file names that are no UTF-8.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
# Progress bars begin a line again, and move up and down.
_MOVES = re.compile("(?:\r|\n|\x1b\\[A)*")


def counted(number: int, noun: str) -> str:
    """A number of things in words: 1 file, 1,200 files."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def escaped(text: str) -> str:
    """`text` with its control characters as Python escapes; tabs and ends of lines stay."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


class CleanStream:
    """A text stream that cleans what is written to it. `raw`: the stream behind it."""

    def __init__(self, raw: TextIO, mask: Callable[[str], str]) -> None:
        self.raw = raw
        self._mask = mask

    def write(self, text: str) -> int:
        """Writes `text`, cleaned; the moves of a progress bar at its beginning stay."""
        moves = _MOVES.match(text)
        begin = moves.end() if moves else 0
        self.raw.write(text[:begin] + escaped(self._mask(text[begin:])))
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


@contextlib.contextmanager
def uncleaned() -> Iterator[None]:
    """Lets the block print this program's own colours."""
    with contextlib.redirect_stdout(getattr(sys.stdout, "raw", sys.stdout)):
        yield
