"""Decides which bar charts show a result: page.py and draw.py draw them.

Series of one unit and one `group`, a setting that some have, stand in one chart.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.measure.harness import Spread
from benchmarks.measure.result import Result, Series

HUNDREDFOLD = 100


@dataclass(frozen=True)
class Bar:
    """The median as a bar, least and most as a whisker. strong: drawn in the colour of the chart's subject."""

    label: str
    spread: Spread
    strong: bool = False


@dataclass(frozen=True)
class Bars:
    """Horizontal bars; the title holds the unit."""

    title: str
    bars: tuple[Bar, ...]

    @property
    def axis(self) -> tuple[float, float] | None:
        """The ends of a logarithmic axis, powers of ten, where bars differ a hundredfold; None for an axis from 0."""
        medians = [bar.spread.median for bar in self.bars]
        least, most = min(medians), max(medians)
        if not 0 < HUNDREDFOLD * least <= most:
            return None
        return 10.0 ** math.floor(math.log10(least) - 0.1), 10.0 ** math.ceil(math.log10(most))

    def lengths(self) -> list[float]:
        """The length of each bar, from 0 to 1."""
        medians, axis = [bar.spread.median for bar in self.bars], self.axis
        if axis is None:
            return [median / (max(medians) or 1.0) for median in medians]
        return [math.log(median / axis[0]) / math.log(axis[1] / axis[0]) for median in medians]


def charts(result: Result) -> list[Bars]:
    """The charts of a result, in the order in which its series begin. Where a series is ours, ours are strong."""
    groups: dict[tuple[str, str], list[Series]] = {}
    for series in result.series:
        groups.setdefault((str(series.settings.get("group", result.benchmark)), series.unit), []).append(series)
    return [_chart(f"{group}, {unit}", members) for (group, unit), members in groups.items()]


def _chart(title: str, members: Sequence[Series]) -> Bars:
    ours = {series.name for series in members if series.name.startswith("shardfeed")}
    return Bars(title, tuple(Bar(each.name, each.spread, each.name in ours or not ours) for each in members))
