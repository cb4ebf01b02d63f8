"""Decides which bar charts show a result; draw.py draws them.

Series of one unit and one `group`, a setting that some have, stand in one chart.
"""

import math
from dataclasses import dataclass

from benchmarks.measure.harness import Spread
from benchmarks.measure.result import Result, Series


@dataclass(frozen=True)
class Bar:
    """The median as a bar, least and most as a whisker. strong: drawn in the colour of the chart's subject."""

    label: str
    spread: Spread
    strong: bool = False


@dataclass(frozen=True)
class Bars:
    """Horizontal bars from 0."""

    title: str
    unit: str
    bars: tuple[Bar, ...]

    def words(self) -> str:
        """The chart in words, for readers who do not see it."""
        figures = ", ".join(f"{bar.label} {number(bar.spread.median)}" for bar in self.bars)
        return f"{self.title}: {figures} {self.unit}"


def charts(result: Result) -> list[Bars]:
    """The charts of a result, in the order in which its series begin. Where a series is ours, ours are strong."""
    groups: dict[tuple[str, str], list[Series]] = {}
    for series in result.series:
        groups.setdefault((str(series.settings.get("group", "")), series.unit), []).append(series)
    drawn = []
    for (group, unit), members in groups.items():
        ours = {series.name for series in members if series.name.startswith("shardfeed")}
        bars = [Bar(series.name, series.spread, strong=series.name in ours or not ours) for series in members]
        drawn.append(Bars(f"{result.benchmark}{group and f', {group}'}: {unit}", unit, tuple(bars)))
    return drawn


def number(value: float) -> str:
    """A figure with at least three digits, thousands separated."""
    if value >= 100 or value == 0:
        return f"{value:,.0f}"
    if abs(value) < 1e-4:
        return f"{value:.3g}"
    return f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"
