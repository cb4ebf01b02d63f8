"""Slices of a job: `--tasks i/n` lets machines with a common file system share the shards of one plan.

Slice i of n is the i-th of n contiguous parts of the list of shards, i from 0 to n - 1 as job arrays count. Slices
that do not overlap as fractions of the list have no shard in common, even where their n differs.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from shards.common.errors import UsageError

Item = TypeVar("Item")


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
