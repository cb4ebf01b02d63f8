"""Warnings of ours while a command runs: one line each, once for the same text, above a progress bar."""

import contextlib
import sys
import warnings
from collections.abc import Iterator
from typing import Any, TextIO

from shards.common.errors import ShardfeedWarning
from shards.common.terminal import wrapped


@contextlib.contextmanager
def warnings_in_lines() -> Iterator[None]:
    """Prints each `ShardfeedWarning` of the block as a line on stderr; other warnings as they were.

    Python itself would print the place in our code, and again for each other place that the same text comes from.
    """
    before, said = warnings.showwarning, set[str]()

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if not issubclass(category, ShardfeedWarning):
            before(message, category, filename, lineno, file, line)
            return
        text = " ".join(str(message).split())
        if text not in said:
            said.add(text)
            _print_above_bars(wrapped(f"warning: {text}", sys.stderr))

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = before


def _print_above_bars(line: str) -> None:
    tqdm: Any = getattr(sys.modules.get("tqdm"), "tqdm", None)  # where it was never imported, there is no bar
    if tqdm is None:
        print(line, file=sys.stderr)
    else:
        tqdm.write(line, file=sys.stderr)
