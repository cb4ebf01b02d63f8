"""Small jobs for the tests of `preprocess`: an image folder as source, and how to run, interrupt and compare jobs."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from preprocess.__main__ import main
from preprocess.sources.source import Row, StoredSource
from tests.conftest import jpeg, photo
from tests.helpers.forks import fork_workers

BROKEN = jpeg(photo(20, 20))[:-100]


def folder(root: Path, splits: dict[str, int], odd: dict[str, bytes] | None = None) -> Path:
    """Writes an image folder of two classes with `splits` images; `odd`: further files by their path."""
    files = {
        f"{split}/{'ab'[i % 2]}/{i:03d}.jpg": jpeg(photo(20 + i % 5, 30 - i % 3, seed=i))
        for split, count in splits.items()
        for i in range(count)
    }
    return write_files(root, {**files, **(odd or {})})


def write_files(root: Path, files: Mapping[str, bytes]) -> Path:
    """Writes files by their path below `root`."""
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def convert(source: Path | str, out: Path, *options: str) -> int:
    """Runs a small job in this process; returns its exit status. Its workers, if it has several, are forks."""
    # --force and --enlarge: no sample is read beforehand, so that tests can count the rows that are read.
    given = ["--short-side", "16", "--shard-size", "4", "--workers", "1", "--force", "--enlarge", *options]
    with pytest.MonkeyPatch.context() as patch:
        fork_workers(patch)
        return main([str(source), str(out), *given])


def tree(root: Path) -> dict[str, bytes]:
    """Every file below a directory, hidden ones too."""
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def line(capsys: pytest.CaptureFixture[str]) -> str:
    """What was printed to stderr, which must be one line beside those that say what goes on."""
    said = [each for each in capsys.readouterr().err.splitlines() if not each.endswith(" ...")]
    assert len(said) <= 1
    return "".join(said)


class Interruption(Exception):
    """Stands for whatever ends a process between two rows."""


def interrupt_at(monkeypatch: pytest.MonkeyPatch, row_count: int) -> None:
    """Makes the source fail after `row_count` rows."""
    read = StoredSource.row
    left = [row_count]

    def row(self: StoredSource, split: str, row: int) -> Row:
        if not left[0]:
            raise Interruption
        left[0] -= 1
        return read(self, split, row)

    monkeypatch.setattr(StoredSource, "row", row)


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list to which every row is added that is read from now on."""
    read = StoredSource.row
    rows: list[int] = []

    def row(self: StoredSource, split: str, row: int) -> Row:
        rows.append(row)
        return read(self, split, row)

    monkeypatch.setattr(StoredSource, "row", row)
    return rows
