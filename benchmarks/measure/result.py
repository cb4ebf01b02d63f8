"""What a benchmark writes down: JSON with a schema, read back only if it fits.

    result = Result.now("loaders", title, command, series, ratios=..., settings=..., schedule=...)
    path = write(result, Path("results"))      # results/loaders-2026-01-02T030405.json
    result = read(path)

Measuring ends here; tables and charts are made of results alone, on any machine and at any later time.
"""

import json
import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.measure.environment import hardware
from benchmarks.measure.harness import Schedule, Spread, Window
from shards.common.atomic import replacing
from shards.common.errors import ShardfeedError
from shards.common.versions import versions

SCHEMA = 1

Setting = str | int | float | bool | None


@dataclass(frozen=True)
class Series:
    """One contender, stage or point of a curve.

    values: one figure a round, in the order of the rounds: those of the n-th round were taken next to each other.
    unit: of the values.
    cpu_ms: milliseconds of one core that an image took, a round each; empty where it was not measured.
    settings: all that was chosen for it, so that a reader can tell whether it was handicapped.
    """

    name: str
    values: tuple[float, ...]
    unit: str = "images/s"
    cpu_ms: tuple[float, ...] = ()
    settings: Mapping[str, Setting] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.values:
            raise ShardfeedError(f"the series {self.name} holds no figure")

    @property
    def spread(self) -> Spread:
        return Spread.of(self.values)

    @classmethod
    def of(cls, name: str, windows: Sequence[Window], settings: Mapping[str, Setting] | None = None) -> "Series":
        """Throughput and processor time of the windows of one contender."""
        return cls(
            name,
            tuple(round(window.images_per_s, 1) for window in windows),
            cpu_ms=tuple(round(window.cpu_ms_per_image, 4) for window in windows),
            settings=settings or {},
        )


@dataclass(frozen=True)
class Ratio:
    """How many times as much the series `of` gives as the series `to`, round by round."""

    of: str
    to: str
    median: float
    least: float
    most: float

    @classmethod
    def between(cls, of: Series, to: Series) -> "Ratio":
        """The ratio of two series that took turns."""
        spread = Spread.of([a / b for a, b in zip(of.values, to.values, strict=True)])
        return cls(of.name, to.name, *(round(each, 3) for each in (spread.median, spread.least, spread.most)))


@dataclass(frozen=True)
class Result:
    """One run of one benchmark.

    title: one line: what was done, for people.
    settings: what holds for all series; skipped: what was not measured, each with the reason.
    rounds, seconds: windows a series and the least length of a window; date: ISO 8601, UTC.
    """

    schema: int
    benchmark: str
    title: str
    command: str
    date: str
    rounds: int
    seconds: float
    series: tuple[Series, ...]
    ratios: tuple[Ratio, ...]
    settings: Mapping[str, Setting]
    skipped: Mapping[str, str]
    versions: Mapping[str, str]
    hardware: Mapping[str, Setting]

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
    ) -> "Result":
        """A result of this moment, this machine and these versions."""
        return cls(
            schema=SCHEMA,
            benchmark=benchmark,
            title=title,
            command=command,
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            rounds=schedule.rounds,
            seconds=schedule.seconds,
            series=tuple(series),
            ratios=tuple(ratios),
            settings=settings or {},
            skipped=skipped or {},
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


def write(result: Result, out: Path) -> Path:
    """Writes `result` to a file of its own in the directory `out`; returns the path."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{result.stem}.json"
    with replacing(path) as file:
        file.write((json.dumps(asdict(result), indent=2) + "\n").encode())
    return path


def read(path: Path) -> Result:
    """The result in a file. Raises ShardfeedError, naming the file and the field, for anything else."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ShardfeedError(f"{path}: cannot be read as a result: {error}") from error
    schema = value.get("schema") if isinstance(value, dict) else None
    if schema != SCHEMA:
        raise ShardfeedError(
            f"{path}: a result of schema {schema}, where this version reads {SCHEMA}: "
            "measure again, or use the version that wrote it"
        )
    try:
        return typing.cast(Result, _checked(Result, value, "result"))
    except TypeError as error:
        raise ShardfeedError(f"{path}: not a result: {error}") from error


def _checked(kind: Any, value: Any, where: str) -> Any:
    """`value`, as JSON gives it, as a `kind`. Raises TypeError that says where it is something else."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if isinstance(kind, type) and is_dataclass(kind):
        given = _as(dict, value, where)
        hints = typing.get_type_hints(kind)
        odd = given.keys() ^ {each.name for each in fields(kind)}
        if odd:
            raise TypeError(f"{where} has or lacks {', '.join(sorted(odd))}")
        return kind(**{name: _checked(hints[name], each, f"{where}.{name}") for name, each in given.items()})
    if origin is tuple:
        return tuple(_checked(arguments[0], each, f"{where}[{i}]") for i, each in enumerate(_as(list, value, where)))
    if origin is Mapping:
        return {name: _checked(arguments[1], each, f"{where}.{name}") for name, each in _as(dict, value, where).items()}
    if origin is types.UnionType:
        return value if value is None else _as(arguments, value, where)
    if kind is float and type(value) is int:
        return float(value)
    # JSON as Python reads it has these; no measurement gives them.
    if kind is float and isinstance(value, float) and not (math.isfinite(value) and value >= 0):
        raise TypeError(f"{where} is {value}, not a figure from 0")
    return _as(kind, value, where)


def _as(kind: Any, value: Any, where: str) -> Any:
    # In Python a bool is an int; in a result it is not.
    if not isinstance(value, kind) or (isinstance(value, bool) and kind in (int, float)):
        raise TypeError(f"{where} is {value!r}")
    return value
