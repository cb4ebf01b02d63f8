"""What people see while a benchmark measures, on stderr where that is a terminal; elsewhere nothing."""

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def announce(what: str, seconds: float) -> None:
    """A line that says what is measured and about how long that takes."""
    if sys.stderr.isatty():
        time = f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} minutes"
        tqdm.write(f"measuring {what} (about {time})", file=sys.stderr)


def watched(steps: Sequence[T], name: Callable[[T], str], unit: str) -> Iterator[T]:
    """The steps one after the other, with a bar that names the current one."""
    with tqdm(steps, unit=unit, disable=None) as bar:
        for step in bar:
            bar.set_postfix_str(name(step))
            yield step
