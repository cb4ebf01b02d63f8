"""Slices of a job: `--tasks i/n` lets machines with a common file system share the shards of one plan.

Slice i of n is the i-th of n contiguous parts of the list of shards, i from 0 to n - 1 as job arrays count. Slices
that do not overlap as fractions of the list have no shard in common, even where their n differs.
"""

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from shards.common.errors import ShardfeedError, UsageError
from shards.common.locks import LockedElsewhere, lock_range, open_range

Item = TypeVar("Item")

# The lock file in the job's work directory, and the bytes of it that stand for the whole job. Nothing is written there.
LOCK = "lock"
SPAN = 1 << 40


@dataclass(frozen=True)
class Slice:
    """Slice `number` of `count`. Raises UsageError for a number out of range."""

    number: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.number < self.count:
            raise UsageError(f"--tasks {self}: there is no such slice, the {self.count} are 0 to {self.count - 1}")

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> "Slice":
        """Reads "i/n". Raises UsageError for anything else."""
        numbers = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
        if not numbers:
            raise UsageError(f"--tasks {text}: give i/n, i from 0 to n - 1, for example 0/8 to 7/8 for eight machines")
        return cls(int(numbers[1]), int(numbers[2]))

    def span(self, length: int) -> tuple[int, int]:
        """The start and the end of the slice in a list of `length`; lengths of slices differ by at most one."""
        return self.number * length // self.count, (self.number + 1) * length // self.count

    def of(self, items: Sequence[Item]) -> Sequence[Item]:
        """The items of the slice."""
        start, end = self.span(len(items))
        return items[start:end]


WHOLE = Slice()


@contextlib.contextmanager
def locked(work: Path, part: Slice = WHOLE) -> Iterator[None]:
    """Holds the lock of `part` of the job whose work directory is `work`, which is made where it is missing.

    Each slice locks its own range of bytes and a whole job locks all: slices run side by side, but nothing that
    overlaps does, not even slices of different counts. Raises ShardfeedError where another process holds any of it.
    A work directory that holds nothing but the lock in the end, because the job was refused before it wrote its plan,
    is removed again.
    """
    made = not work.parent.exists()
    try:
        descriptor = open_range(work / LOCK, *part.span(SPAN))
    except LockedElsewhere as error:
        what = work.parent if part == WHOLE else f"slice {part} of {work.parent}, or on what overlaps it"
        holder = "" if error.process is None else f" (process {error.process})"
        raise ShardfeedError(f"another job is at work on {what}{holder}: wait for it, or stop it") from None
    try:
        yield
    finally:
        if _holds_only_the_lock(work) and lock_range(descriptor, 0, SPAN):
            # With every slice locked no other job is at work; one that has opened the file already opens it again.
            with contextlib.suppress(OSError):
                (work / LOCK).unlink()
                work.rmdir()
                if made:
                    work.parent.rmdir()
        os.close(descriptor)


def _holds_only_the_lock(work: Path) -> bool:
    try:
        return [path.name for path in work.iterdir()] == [LOCK]
    except FileNotFoundError:
        return False
