"""What a benchmark stores: a result as JSON, checked against these types when it is read back.

    result = Result.now("loaders", title, command, series, ratios=..., settings=..., schedule=...)
    path = write(result, Path("Results/benchmarks"))      # Results/benchmarks/loaders-2026-01-02T030405.json
    result = read(path)

Tables and charts are made from results alone, on any machine and at any later time.
"""

import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, Self

import msgspec

from benchmarks.measure.harness import Interval, Schedule, Spread
from benchmarks.measure.machine import hardware
from shards.common.atomic import refuse_unwritable, replacing
from shards.common.errors import ShardfeedError, UsageError
from shards.common.versions import versions

Setting = str | int | float | bool | None
Figure = Annotated[float, msgspec.Meta(ge=0)]


class Series(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One contender, stage or point of a curve.

    values: one figure per round, in the order of the rounds: the n-th figures of all series were taken together.
    unit: of the values.
    cpu_ms: milliseconds of one core per image, one figure per round; empty where it was not measured.
    settings: everything that was chosen for it, so that a reader can tell whether it was handicapped.
    """

    name: str
    values: Annotated[tuple[Figure, ...], msgspec.Meta(min_length=1)]
    unit: str = "images/s"
    cpu_ms: tuple[Figure, ...] = ()
    settings: Mapping[str, Setting] = {}

    @property
    def spread(self) -> Spread:
        return Spread.of(self.values)

    @classmethod
    def of(cls, name: str, intervals: Sequence[Interval], settings: Mapping[str, Setting] | None = None) -> "Series":
        """Throughput and processor time of the intervals of one contender."""
        return cls(
            name,
            tuple(_digits(interval.images_per_s) for interval in intervals),
            cpu_ms=tuple(_digits(interval.cpu_ms_per_image) for interval in intervals),
            settings=settings or {},
        )


def _digits(value: float) -> float:
    """Six digits: fewer than a measurement is worth would change ratios, and an image may take seconds."""
    return float(f"{value:.6g}")


class Ratio(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The figures of the series `of` divided by those of the series `to`, round by round."""

    of: str
    to: str
    median: Figure
    least: Figure
    most: Figure

    @classmethod
    def between(cls, of: Series, to: Series) -> "Ratio":
        """The ratio of two series that took turns."""
        spread = Spread.of([a / b for a, b in zip(of.values, to.values, strict=True)])
        return cls(of.name, to.name, *(round(each, 3) for each in (spread.median, spread.least, spread.most)))


class Result(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One run of one benchmark.

    title: one line for people: what was measured. findings: what the figures say, in sentences.
    settings: what holds for all series; skipped: what was not measured, each with the reason.
    rounds, seconds: intervals per series and the least length of one; date: ISO 8601, UTC.
    incomplete: the command was stopped, and these are the rounds that it had measured by then.
    """

    schema: Literal[1] = 1
    benchmark: str
    title: str
    command: str
    date: str
    rounds: int
    seconds: Figure
    series: tuple[Series, ...]
    ratios: tuple[Ratio, ...]
    settings: Mapping[str, Setting]
    skipped: Mapping[str, str]
    findings: tuple[str, ...] = ()
    versions: Mapping[str, str]
    hardware: Mapping[str, Setting]
    incomplete: bool = False

    @classmethod
    def now(
        cls,
        benchmark: str,
        title: str,
        command: str,
        series: Sequence[Series],
        *,
        schedule: Schedule,
        ratios: Sequence[Ratio] = (),
        settings: Mapping[str, Setting] | None = None,
        skipped: Mapping[str, str] | None = None,
        findings: Sequence[str] = (),
    ) -> "Result":
        """A result of this moment, this machine and these versions."""
        return cls(
            benchmark=benchmark,
            title=title,
            command=command,
            date=_now(),
            rounds=schedule.rounds,
            seconds=schedule.seconds,
            series=tuple(series),
            ratios=tuple(ratios),
            settings=settings or {},
            skipped=skipped or {},
            findings=tuple(findings),
            versions=versions(),
            hardware=hardware(),
        )

    def __getitem__(self, name: str) -> Series:
        """The series of that name. Raises KeyError."""
        return {series.name: series for series in self.series}[name]

    @property
    def stem(self) -> str:
        """The name of its files, without suffix: benchmark and date."""
        return f"{self.benchmark}-{self.date[:19].replace(':', '')}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


class ResultFile:
    """The file of a result from its first figure on; a context manager that, if it is left by an error, names the file.

    The date of the result is that of the beginning, so that all that is kept goes to one file.
    """

    def __init__(self, out: Path) -> None:
        """`out`: the directory, which is made now. Raises UsageError where that fails, before a measurement."""
        refuse_unwritable("--out", out, directory=True)
        out.mkdir(parents=True, exist_ok=True)
        self._out, self._date = out, _now()
        self._kept: Path | None = None

    def keep(self, result: Result) -> None:
        """Writes what is measured so far, marked as incomplete."""
        title = f"{result.title} (incomplete)"
        rounds = min((len(series.values) for series in result.series), default=0)
        kept = msgspec.structs.replace(result, date=self._date, title=title, rounds=rounds, incomplete=True)
        self._kept = write(kept, self._out)

    def dated(self, result: Result) -> Result:
        """The whole result, to be written over what was kept."""
        self._kept = None
        return msgspec.structs.replace(result, date=self._date)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._kept is not None:
            print(f"what was measured is in {self._kept}, marked as incomplete", file=sys.stderr)


def write(result: Result, out: Path) -> Path:
    """Writes `result` to a file of its own in the directory `out`; returns the path."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{result.stem}.json"
    with replacing(path) as file:
        file.write(msgspec.json.format(msgspec.json.encode(result)) + b"\n")
    return path


def read(path: Path) -> Result:
    """The result in a file. Raises UsageError where there is none, ShardfeedError for anything else, with the field."""
    if not path.is_file():
        raise UsageError(f"{path} is not a file: give a result that `python -m benchmarks` wrote, *.json in its --out")
    try:
        return msgspec.json.decode(path.read_bytes(), type=Result)
    except (OSError, ValueError) as error:
        raise ShardfeedError(f"{path}: not a result that this version reads: {error}") from error
