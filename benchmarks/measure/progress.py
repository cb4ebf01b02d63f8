"""What people see while a benchmark measures, on stderr: a bar on a terminal, a line for each step in a log."""

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from tqdm import tqdm

from shards.common.terminal import progress_bar, wrapped

T = TypeVar("T")


def announce(what: str, seconds: float) -> None:
    """A line that says what is measured and about how long that takes."""
    time = f"about {seconds:.0f} s" if seconds < 90 else f"about {seconds / 60:.0f} minutes"
    line = f"measuring {what} ({'less than 1 s' if seconds < 1 else time})"
    tqdm.write(wrapped(line, sys.stderr), file=sys.stderr)


def note(what: str) -> None:
    """A line about a part of a step, in a log only."""
    if not sys.stderr.isatty():
        print(what, file=sys.stderr, flush=True)


def watched(steps: Sequence[T], name: Callable[[T], str], unit: str) -> Iterator[T]:
    """The steps one after the other, with a bar, or in a log a line, that names the current one."""
    with progress_bar(steps, unit=unit) as bar:
        for number, step in enumerate(bar, 1):
            if bar.disable:
                print(f"{unit} {number} of {len(steps)}: {name(step)}", file=sys.stderr, flush=True)
            else:
                bar.set_postfix_str(name(step))
            yield step
