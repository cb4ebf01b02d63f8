"""Results of loaders that the repository keeps, so that the documents' tables can be made again from them.

    benchmarks/results/2026-01-02-amd-epyc-family-25-model-1-avx2/loaders-2026-01-02T030405.json

A folder for each date and kind of machine. A newer result of the same work on one kind of machine takes the place of an
older one, whose file is removed.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from benchmarks.measure.result import Result, read, write

HOME = Path("benchmarks/results")
_WORD = r"('[^']*'|\S+)"
# The folders of an absolute path, as in the messages of libraries.
_FOLDERS = re.compile(r"(?<![\w./:])/(?:[^\s/'\",:;()]+/)+")


def kept(home: Path) -> dict[Path, Result]:
    """All kept results by their files. Raises ShardfeedError for one that cannot be read."""
    return {path: read(path) for path in sorted(home.glob("*/*.json"))}


def keep(results: Sequence[Result], home: Path) -> list[Path]:
    """Makes `home` hold these results and no others; returns their files."""
    paths = [write(result, home / _folder(result)) for result in results]
    for path in kept(home).keys() - set(paths):
        path.unlink()
        if not any(path.parent.iterdir()):
            path.parent.rmdir()
    return paths


def _folder(result: Result) -> str:
    machine = re.sub(r"[^a-z0-9]+", "-", str(result.hardware.get("cpu")).lower()).strip("-")
    return f"{result.date[:10]}-{machine}"


def without_places(result: Result) -> Result:
    """The result without paths of the machine, in its command and in the reasons why something was not measured."""
    skipped = {name: _FOLDERS.sub("", reason) for name, reason in result.skipped.items()}
    return msgspec.structs.replace(result, command=repeatable(result.command), skipped=skipped)


def repeatable(command: str) -> str:
    """A command without paths of the machine: DIR and SOURCE stand for data, and outputs go to the usual places."""
    command = re.sub(rf" --(work|out) {_WORD}", "", command)
    return re.sub(rf"--source {_WORD}", "--source SOURCE", re.sub(rf"--data {_WORD}", "--data DIR", command))
