"""Decides which charts show a result, from the settings of its series; draw.py draws them.

    curve, axis, at     a point of a curve: the curve's name, the horizontal axis, and where the point lies on it
    group               series of one group are drawn together; those of "ladder" as the time that an image takes
    limit               the name of the series that is the limit of this one

Series without these settings become bars, one chart per unit.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.measure.harness import Spread
from benchmarks.measure.result import Result, Series

# From this ratio of its ends on, a horizontal axis is logarithmic.
LOG = 50.0


@dataclass(frozen=True)
class Bar:
    """The median as a bar, least and most as a whisker. mark: the limit of this bar, drawn as a tick."""

    label: str
    spread: Spread
    mark: float | None = None
    strong: bool = False
    """Drawn in the colour of the chart's subject."""


@dataclass(frozen=True)
class Bars:
    """Horizontal bars from 0. mark: what the ticks mean."""

    title: str
    unit: str
    bars: tuple[Bar, ...]
    mark: str = ""

    def words(self) -> str:
        """The chart in words, for readers who do not see it."""
        figures = ", ".join(f"{bar.label} {number(bar.spread.median)}" for bar in self.bars)
        return f"{self.title}: {figures} {self.unit}"


@dataclass(frozen=True)
class Curves:
    """Points joined by lines, by the name of the curve; the vertical axis begins at 0. log: the horizontal axis."""

    title: str
    across: str
    unit: str
    curves: Mapping[str, tuple[tuple[float, Spread], ...]]
    log: bool = False

    def words(self) -> str:
        """The chart in words, for readers who do not see it."""
        curves = "; ".join(
            f"{name}: " + ", ".join(f"{number(spread.median)} at {short(x)}" for x, spread in points)
            for name, points in self.curves.items()
        )
        return f"{self.title}, {self.unit}: {curves}"


Chart = Bars | Curves


def charts(result: Result) -> list[Chart]:
    """The charts of a result, in the order in which its series begin."""
    groups: dict[tuple[str, str], list[Series]] = {}
    for series in result.series:
        kind = str(series.settings["axis"] if _on_a_curve(series) else series.settings.get("group", ""))
        groups.setdefault((kind, series.unit), []).append(series)
    drawn = [_chart(result, kind, unit, members) for (kind, unit), members in groups.items()]
    return [chart for chart in drawn if isinstance(chart, Curves) or chart.bars]


def number(value: float) -> str:
    """A figure with at least three digits, thousands separated."""
    if value >= 100 or value == 0:
        return f"{value:,.0f}"
    if abs(value) < 1e-4:
        return f"{value:.3g}"
    return f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def short(value: float) -> str:
    """A label of the horizontal axis: 1.28M, 100k, 16."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= 10 * size or (size == 1e6 and value >= size):
            return f"{value / size:.3g}{letter}"
    return f"{value:g}"


def _chart(result: Result, kind: str, unit: str, members: list[Series]) -> Chart:
    if all(map(_on_a_curve, members)):
        return _curves(kind, unit, members)
    if kind == "ladder":
        return _ladder(result, members)
    title = f"{result.benchmark}{f', {kind}' if kind else ''}: {unit}"
    ours = [series for series in members if series.name.startswith("shardfeed")]
    strong = {series.name for series in ours or members}
    return Bars(title, unit, tuple(Bar(series.name, series.spread, strong=series.name in strong) for series in members))


def _on_a_curve(series: Series) -> bool:
    where = series.settings
    return "curve" in where and "axis" in where and isinstance(where.get("at"), (int, float))


def _curves(axis: str, unit: str, members: list[Series]) -> Curves:
    curves: dict[str, list[tuple[float, Spread]]] = {}
    for series in members:
        at = series.settings["at"]
        assert isinstance(at, (int, float))
        curves.setdefault(str(series.settings["curve"]), []).append((float(at), series.spread))
    xs = [x for points in curves.values() for x, _ in points]
    name = next(iter(curves)) if len(curves) == 1 else unit
    ordered = {name: tuple(sorted(points, key=lambda point: point[0])) for name, points in curves.items()}
    return Curves(f"{name} over {axis}", axis, unit, ordered, log=min(xs) > 0 and max(xs) / min(xs) >= LOG)


def _ladder(result: Result, members: list[Series]) -> Bars:
    by_name = {series.name: series for series in result.series}
    bars = []
    for series in members:
        limit = by_name.get(str(series.settings.get("limit")))
        mark = 1e6 / limit.spread.median if limit is not None and limit.spread.median else None
        times = [1e6 / value for value in series.values if value]  # a stage that did nothing has no time per image
        if times:
            bars.append(Bar(series.name, Spread.of(times), mark, strong=True))
    return Bars("The stages: what an image takes", "microseconds", tuple(bars), mark="the least that its limit allows")
