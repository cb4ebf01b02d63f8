"""Two kinds of charts, as data: bars with their spread, and curves. Drawn as SVG for a page or as PNG for a README.

The SVG is made for a phone first: 320 units wide, text of 12, colours taken from the page's style sheet
(classes `ink`, `faint`, `grid`, `mark`, `s0` to `s3`), so that a dark page has a dark chart.
"""

import io
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from benchmarks.measure.harness import Spread

WIDTH = 320
MARGIN = 4
LETTER = 6.6  # mean width of a letter of the 12-unit text, in units
COLOURS = 4
# For the PNG, which has no style sheet.
_PNG_COLOURS = ("#1f6feb", "#9a6700", "#8250df", "#57606a")
_PNG_OTHERS = "#9aa5b1"


@dataclass(frozen=True)
class Bar:
    """One bar: the median, with least and most as a whisker. mark: a ceiling to compare with, drawn as a tick."""

    label: str
    spread: Spread
    mark: float | None = None
    strong: bool = False
    """Drawn in the colour of what the chart is about."""


@dataclass(frozen=True)
class Bars:
    """Horizontal bars from 0."""

    title: str
    unit: str
    bars: tuple[Bar, ...]
    mark: str = ""
    """What the ticks are."""


@dataclass(frozen=True)
class Curves:
    """Points joined by lines, by the name of the curve; the vertical axis begins at 0. log: the horizontal one."""

    title: str
    across: str
    unit: str
    curves: Mapping[str, tuple[tuple[float, Spread], ...]]
    log: bool = False


Chart = Bars | Curves


def svg(chart: Chart) -> str:
    """The chart as an SVG element."""
    return _bars(chart) if isinstance(chart, Bars) else _curves(chart)


def number(value: float) -> str:
    """A figure as people read it: three digits at least, thousands separated."""
    if value >= 100 or value == 0:
        return f"{value:,.0f}"
    if abs(value) < 1e-4:
        return f"{value:.3g}"
    return f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def _bars(chart: Bars) -> str:
    most = max(max(bar.spread.most, bar.mark or 0) for bar in chart.bars) or 1.0
    scale = (WIDTH - 2 * MARGIN) / most
    parts: list[str] = []
    y = 0.0
    for bar in chart.bars:
        value = number(bar.spread.median)
        room = int((WIDTH - 3 * MARGIN) / LETTER - len(value) - 2)
        for line in textwrap.wrap(bar.label, room) or [""]:
            y += 15
            parts.append(_text(MARGIN, y, line))
        parts.append(_text(WIDTH - MARGIN, y, value, "ink strong", "end"))
        y += 5
        kind = "s0" if bar.strong else "s3"
        parts.append(
            f'<rect class="{kind}" x="{MARGIN}" y="{y:.1f}" width="{bar.spread.median * scale:.1f}" height="11"/>'
        )
        middle, low, high = y + 5.5, MARGIN + bar.spread.least * scale, MARGIN + bar.spread.most * scale
        if high - low >= 1:
            parts.append(
                f'<path class="whisker" d="M{low:.1f} {middle:.1f}H{high:.1f}'
                f'M{low:.1f} {middle - 3.5:.1f}v7M{high:.1f} {middle - 3.5:.1f}v7"/>'
            )
        if bar.mark is not None:
            parts.append(f'<path class="mark" d="M{MARGIN + bar.mark * scale:.1f} {y - 2:.1f}v15"/>')
        y += 18
    return _svg(y, f"{chart.title}: " + _said(chart), parts)


def _said(chart: Bars) -> str:
    return ", ".join(f"{bar.label} {number(bar.spread.median)}" for bar in chart.bars) + f" {chart.unit}"


def _curves(chart: Curves) -> str:
    points = [(x, spread) for curve in chart.curves.values() for x, spread in curve]
    xs = sorted({x for x, _ in points})
    most = max(spread.most for _, spread in points) or 1.0
    step = _step(most)
    ceiling = math.ceil(most / step) * step
    levels = [i * step for i in range(round(ceiling / step) + 1)]
    left = 10 + (LETTER + 0.6) * max(len(number(level)) for level in levels)
    right, top, height = 24.0, 22.0, 150.0
    place = _across(xs, chart.log)

    def at(x: float, y: float) -> tuple[float, float]:
        return left + place(x) * (WIDTH - left - right), top + height * (1 - y / ceiling)

    parts = [_text(MARGIN, 12, chart.unit, "faint")]
    for level in levels:
        _, y = at(xs[0], level)
        parts.append(f'<path class="grid" d="M{left} {y:.1f}H{WIDTH - MARGIN}"/>')
        parts.append(_text(left - 5, y + 4, number(level), "faint", "end"))
    parts += [_text(at(x, 0)[0], top + height + 16, _short(x), "faint", "middle") for x in _apart(xs, at)]
    parts.append(_text(left + (WIDTH - left - right) / 2, top + height + 33, chart.across, "faint", "middle"))
    bottom = top + height + 40
    for i, (name, curve) in enumerate(chart.curves.items()):
        colour = f"c{i % COLOURS}"
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(x, spread.median) for x, spread in curve))
        parts.append(f'<polyline class="line {colour}" points="{line}"/>')
        for x, spread in curve:
            (px, py), (_, low), (_, high) = at(x, spread.median), at(x, spread.least), at(x, spread.most)
            if low - high >= 1:
                parts.append(f'<path class="line thin {colour}" d="M{px:.1f} {low:.1f}V{high:.1f}"/>')
            parts.append(f'<circle class="dot {colour}" cx="{px:.1f}" cy="{py:.1f}" r="3"/>')
        if len(chart.curves) > 1:
            bottom += 17
            parts.append(f'<path class="line {colour}" d="M{left} {bottom - 4:.1f}h18"/>')
            parts.append(_text(left + 24, bottom, name))
    said = "; ".join(
        f"{name}: " + ", ".join(f"{number(s.median)} at {_short(x)}" for x, s in c) for name, c in chart.curves.items()
    )
    return _svg(bottom + 4, f"{chart.title}, {chart.unit}: {said}", parts)


def _across(xs: Sequence[float], log: bool) -> "_Place":
    bounds = (math.log(xs[0]), math.log(xs[-1])) if log else (xs[0], xs[-1])
    return _Place(bounds[0], bounds[1], log)


@dataclass(frozen=True)
class _Place:
    """From values of the horizontal axis to 0 at its left end and 1 at its right one."""

    first: float
    last: float
    log: bool

    def __call__(self, x: float) -> float:
        value = math.log(x) if self.log else x
        return 0.5 if self.last == self.first else (value - self.first) / (self.last - self.first)


def _apart(xs: Sequence[float], at: Callable[[float, float], tuple[float, float]]) -> list[float]:
    """Those of the values whose labels do not touch, from the left; the last one always."""
    kept: list[float] = []
    for x in xs:
        if not kept or at(x, 0)[0] - at(kept[-1], 0)[0] >= 40:
            kept.append(x)
    if kept[-1] != xs[-1]:
        kept[-1] = xs[-1]
    return kept


def _step(most: float) -> float:
    """A round step that divides 0 to `most` into two to five."""
    power = 10.0 ** math.floor(math.log10(most))
    return next(step * power for step in (0.2, 0.25, 0.5, 1.0, 2.0) if most / (step * power) <= 5)


def _short(value: float) -> str:
    """A label of the horizontal axis: 1.28M, 100k, 16."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= 10 * size or (size == 1e6 and value >= size):
            return f"{value / size:.3g}{letter}"
    return f"{value:g}"


def _text(x: float, y: float, words: str, kind: str = "ink", anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _svg(height: float, said: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(said, quote=True)}">'
        + "".join(parts)
        + "</svg>"
    )


def png(chart: Chart, path: Path, note: str = "") -> None:
    """Draws the chart to a PNG; `note` stands small under its title."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = len(chart.bars) if isinstance(chart, Bars) else 7
    figure = Figure(figsize=(8, 1.3 + 0.42 * rows), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    figure.suptitle(chart.title, fontsize=12)
    axes.set_title(note, fontsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    if isinstance(chart, Bars):
        _draw(axes, chart, [bar.label for bar in chart.bars])
        axes.invert_yaxis()
        axes.margins(x=0.15)
        axes.set_xlabel(chart.unit + (f" (tick: {chart.mark})" if chart.mark else ""))
        axes.grid(axis="x", alpha=0.3, zorder=0)
    else:
        for i, (name, curve) in enumerate(chart.curves.items()):
            xs, spreads = [x for x, _ in curve], [spread for _, spread in curve]
            errors = [[s.median - s.least for s in spreads], [s.most - s.median for s in spreads]]
            colour = _PNG_COLOURS[i % COLOURS]
            axes.errorbar(xs, [s.median for s in spreads], yerr=errors, color=colour, marker="o", capsize=4, label=name)
        if chart.log:
            axes.set_xscale("log")
        axes.set_ylim(bottom=0)
        axes.set_xlabel(chart.across)
        axes.set_ylabel(chart.unit)
        axes.grid(alpha=0.3)
        if len(chart.curves) > 1:
            axes.legend()
    figure.savefig(path)


def panels(charts: Sequence[Bars], path: Path, note: str = "") -> None:
    """Draws charts side by side to one small PNG, bars of the same label in line; `note` stands small above them.

    Its ground is white, so that it can be read on a dark page too; it has few colours, so that its file is small.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    longest = max(charts, key=lambda chart: len(chart.bars))
    labels = [bar.label for bar in longest.bars]
    labels += [bar.label for chart in charts for bar in chart.bars if bar.label not in labels]
    figure = Figure(figsize=(2.2 + 1.9 * len(charts), 1.0 + 0.3 * len(labels)), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(note, fontsize=8)
    for axes, chart in zip(figure.subplots(1, len(charts), sharey=True, squeeze=False)[0], charts, strict=True):
        axes.set_title(chart.title, fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        _draw(axes, chart, labels, fontsize=8)
        axes.set_xlabel(chart.unit, fontsize=8)
        axes.set_xlim(0, 1.35 * max(bar.spread.most for bar in chart.bars))
        axes.tick_params(axis="x", labelbottom=False, length=0)
        axes.tick_params(axis="y", labelsize=9)
    figure.axes[0].invert_yaxis()
    drawn = io.BytesIO()
    figure.savefig(drawn)
    Image.open(drawn).convert("RGB").quantize(32).save(path, format="PNG", optimize=True)


def _draw(axes: Any, chart: Bars, labels: Sequence[str], fontsize: float | None = None) -> None:
    """Bars with whiskers and figures, each in the place of its label; places without a bar stay empty."""
    for bar in chart.bars:
        i, spread = labels.index(bar.label), bar.spread
        whisker = [[spread.median - spread.least], [spread.most - spread.median]]
        colour = _PNG_COLOURS[0] if bar.strong else _PNG_OTHERS
        axes.barh([i], [spread.median], xerr=whisker, color=colour, height=0.55, capsize=3, zorder=2)
        place = (max(spread.most, bar.mark or 0), i)
        axes.annotate(number(spread.median), place, (6, 0), textcoords="offset points", va="center", fontsize=fontsize)
        if bar.mark is not None:
            axes.plot([bar.mark] * 2, [i - 0.38, i + 0.38], color="black", linewidth=2, zorder=3)
    axes.set_yticks(range(len(labels)), labels)
