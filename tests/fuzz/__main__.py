"""Damages files at random and prints a table of what became of them.

python -m tests.fuzz [--mutations 5000] [--seed 0] [--cases "tar, verify" ...]      exit status 1 after a fault
"""

import sys
from dataclasses import dataclass

from shards.common.cli import run
from shards.common.errors import ShardfeedError, UsageError
from tests.fuzz.cases import CASES
from tests.fuzz.run import CAUGHT, CRASHED, SAME, SILENT, faults

SHOWN = 3


@dataclass(frozen=True)
class Options:
    """Damages files at random and reads them."""

    mutations: int = 5000
    """Mutations of each file."""
    seed: int = 0
    """Of the mutations."""
    cases: tuple[str, ...] = tuple(CASES)
    """The cases to try; all by default."""

    def __post_init__(self) -> None:
        if unknown := set(self.cases) - set(CASES):
            raise UsageError(f"--cases {min(unknown)!r} is unknown: choose among {', '.join(map(repr, CASES))}")


def fuzz(options: Options) -> None:
    """Prints a line for each case, and the first faults of each. Raises ShardfeedError where there were any."""
    total = 0
    print(f"{'':<30}{SAME:>14}{CAUGHT:>18}{SILENT:>28}{CRASHED:>20}")
    for name in options.cases:
        counts, found = faults(name, options.mutations, options.seed)
        print(f"{name:<30}{counts[SAME]:>14}{counts[CAUGHT]:>18}{counts[SILENT]:>28}{counts[CRASHED]:>20}", flush=True)
        for outcome in found[:SHOWN]:
            print(f"  mutation {outcome.number}: {outcome.kind}: {outcome.detail}")
        total += len(found)
    if total:
        raise ShardfeedError(f"{total} faults")


if __name__ == "__main__":
    sys.exit(run("python -m tests.fuzz", Options, fuzz))
