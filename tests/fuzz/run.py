"""Damages the file of a case again and again, and says what became of it."""

import random
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from shards.common.errors import ShardfeedError
from tests.fuzz.cases import CASES, Case

SAME, CAUGHT, SILENT, CRASHED = "same result", "one clear error", "another result, in silence", "another exception"


@dataclass(frozen=True)
class Outcome:
    """What mutation `number` led to. `detail`: the error's line, or the traceback of another exception."""

    number: int
    kind: str
    detail: str


def outcomes(name: str, mutations: int, seed: int = 0) -> Iterator[Outcome]:
    """The outcome of each mutation. Mutation i of a case is the same in every run with the same seed."""
    case = CASES[name]
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        case.make(root)
        whole = (root / case.file).read_bytes()
        expected = case.read(root)
        for number in range(mutations):
            draw, changed = random.Random(f"{seed} {name} {number}"), whole
            while changed == whole:
                changed = case.mutate(whole, draw)
            (root / case.file).write_bytes(changed)
            kind, detail = _outcome(case, root, expected)
            yield Outcome(number, kind, detail)


def _outcome(case: Case, root: Path, expected: object) -> tuple[str, str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = case.read(root)
    except ShardfeedError as error:
        many = "\n" in str(error).strip()
        return (CRASHED, f"more than one line: {error}") if many else (CAUGHT, str(error))
    except Exception:
        return CRASHED, traceback.format_exc()
    return (SAME, "") if found == expected and not case.every else (SILENT, str(found)[:200])


def faults(name: str, mutations: int, seed: int = 0) -> tuple[Counter[str], list[Outcome]]:
    """How often each kind of outcome came, and the outcomes that must not be."""
    counts: Counter[str] = Counter()
    found = []
    for outcome in outcomes(name, mutations, seed):
        counts[outcome.kind] += 1
        if outcome.kind in (SILENT, CRASHED):
            found.append(outcome)
    return counts, found
