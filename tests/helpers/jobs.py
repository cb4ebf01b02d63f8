"""Small jobs for the tests of `preprocess`: sources made of files, ways to run, to interrupt and to compare."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from preprocess.__main__ import main
from preprocess.sources.source import Row, StoredSource
from tests.conftest import jpeg, photo

BROKEN = jpeg(photo(20, 20))[:-100]


def folder(root: Path, splits: dict[str, int], odd: dict[str, bytes] | None = None) -> Path:
    """An image folder of two classes with so many images a split, and further files by their path."""
    files = {
        f"{split}/{'ab'[i % 2]}/{i:03d}.jpg": jpeg(photo(20 + i % 5, 30 - i % 3, seed=i))
        for split, count in splits.items()
        for i in range(count)
    }
    for name, data in {**files, **(odd or {})}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def convert(source: Path | str, out: Path, *options: str) -> int:
    # --force: no sample is read beforehand, so that tests can count what is.
    given = ["--short-side", "16", "--shard-size", "4", "--workers", "1", "--force", *options]
    return main([str(source), str(out), *given])


def tree(root: Path) -> dict[str, bytes]:
    """Every file below a directory, hidden ones too."""
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def line(capsys: pytest.CaptureFixture[str]) -> str:
    """What was said on stderr, which must be one line."""
    said = capsys.readouterr().err.strip()
    assert "\n" not in said
    return said


class Interruption(Exception):
    """Stands for whatever ends a process between two rows."""


def interrupt_at(monkeypatch: pytest.MonkeyPatch, row_count: int) -> None:
    """Makes the source fail at its so-manyth row."""
    read = StoredSource.row
    left = [row_count]

    def row(self: StoredSource, split: str, row: int) -> Row:
        if not left[0]:
            raise Interruption
        left[0] -= 1
        return read(self, split, row)

    monkeypatch.setattr(StoredSource, "row", row)


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    read = StoredSource.row
    rows: list[int] = []

    def row(self: StoredSource, split: str, row: int) -> Row:
        rows.append(row)
        return read(self, split, row)

    monkeypatch.setattr(StoredSource, "row", row)
    return rows


def group_exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def wait_until(condition: Callable[[], bool], seconds: float = 100) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)
