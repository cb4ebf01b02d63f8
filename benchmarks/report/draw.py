"""Draws charts with matplotlib: as SVG that takes its colours from the page's style sheet, and as PNG.

Charts are drawn for a phone: as wide as its screen, each bar's label in a line of its own above the bar.
"""

import io
import re
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any

from benchmarks.report.charts import Bars, Chart, Curves, number, short

WIDTH = 320  # units of 1/72 inch; of the SVG, units of its view box
LINE = 15  # height of a line of text
FONT = 11
LETTER = 0.6 * FONT  # mean width of a letter
# Colours of the PNG. An SVG has the variable of the page's style sheet in place of each.
COLOURS = {
    "ink": "#1f2328",
    "faint": "#57606a",
    "rule": "#d0d7de",
    "mark": "#b3261e",
    "c0": "#1f6feb",
    "c1": "#9a6700",
    "c2": "#8250df",
    "c3": "#8c959f",
}
LINES = ("c0", "c1", "c2", "c3")


def svg(chart: Chart) -> str:
    """The chart as an SVG element without a size, whose colours are the variables of the page."""
    file = io.StringIO()
    with _style():
        _figure(chart).savefig(file, format="svg", transparent=True, metadata=dict.fromkeys(["Date", "Creator"]))
    drawn = file.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    for name, colour in COLOURS.items():
        drawn = drawn.replace(colour, f"var(--{name})")
    drawn = re.sub(r' id="[a-z0-9]+_\d+"', "", drawn)  # the next chart of the page has the same ones
    drawn = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font: \1px system-ui, sans-serif", drawn)
    drawn = re.sub(r' (?:width|height)="[\d.]+pt"', "", drawn, count=2)
    return drawn.replace("<svg ", f'<svg role="img" aria-label="{escape(chart.words(), quote=True)}" ', 1)


def png(chart: Chart, path: Path, note: str = "") -> None:
    """Draws the chart to a PNG with its title; `note` stands small below it."""
    with _style():
        _figure(chart, [chart.title, *textwrap.wrap(note, 60)]).savefig(path, dpi=250)


def panels(charts: Sequence[Bars], path: Path, note: str = "") -> None:
    """Draws charts side by side to one small PNG, with the bars of one label in one row; `note` stands above them.

    Its background is white, so that it can be read on a dark page too; it has few colours, so that its file is small.
    """
    from matplotlib.figure import Figure
    from PIL import Image

    labels = list(dict.fromkeys(bar.label for chart in _longest_first(charts) for bar in chart.bars))
    figure = Figure(figsize=(2.2 + 1.9 * len(charts), 1.0 + 0.3 * len(labels)), dpi=100, layout="constrained")
    figure.suptitle(note, fontsize=8)
    for axes, chart in zip(figure.subplots(1, len(charts), sharey=True, squeeze=False)[0], charts, strict=True):
        for bar in chart.bars:
            row, spread = labels.index(bar.label), bar.spread
            whisker = [[spread.median - spread.least], [spread.most - spread.median]]
            axes.barh(row, spread.median, 0.55, xerr=whisker, capsize=3, color=COLOURS["c0" if bar.strong else "c3"])
            axes.annotate(
                number(spread.median), (spread.most, row), (6, 0), textcoords="offset points", va="center", fontsize=8
            )
        axes.set_title(chart.title, fontsize=9)
        axes.set_xlabel(chart.unit, fontsize=8)
        axes.set_xlim(0, 1.35 * max(bar.spread.most for bar in chart.bars))
        axes.set_yticks(range(len(labels)), labels)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(axis="x", labelbottom=False, length=0)
        axes.tick_params(axis="y", labelsize=9)
    figure.axes[0].invert_yaxis()
    drawn = io.BytesIO()
    figure.savefig(drawn)
    Image.open(drawn).convert("RGB").quantize(32).save(path, format="PNG", optimize=True)


def _longest_first(charts: Sequence[Bars]) -> list[Bars]:
    return sorted(charts, key=lambda chart: -len(chart.bars))


@contextmanager
def _style() -> Iterator[None]:
    import matplotlib

    ink, faint, rule = (COLOURS[name] for name in ("ink", "faint", "rule"))
    settings: Any = {"font.size": FONT, "svg.fonttype": "none", "svg.hashsalt": "shardfeed"}
    settings |= {"text.color": ink, "axes.labelcolor": faint, "axes.edgecolor": rule, "grid.color": rule}
    settings |= {"xtick.color": faint, "ytick.color": faint, "axes.spines.top": False, "axes.spines.right": False}
    with matplotlib.rc_context(settings):
        yield


def _figure(chart: Chart, head: Sequence[str] = ()) -> Any:
    """The chart; in a PNG below the lines of `head`, the first of them a title, and with its unit."""
    return _bars(chart, head) if isinstance(chart, Bars) else _curves(chart, head)


def _bars(chart: Bars, head: Sequence[str]) -> Any:
    from matplotlib.figure import Figure

    longest = max(max(bar.spread.most, bar.mark or 0) for bar in chart.bars) or 1.0
    figure = Figure()
    axes = figure.add_axes((0.01, 0, 0.98, 1))  # the vertical axis counts lines of text from the top
    axes.set_axis_off()
    y = 0.0
    for i, line in enumerate(head):
        y += 1
        axes.text(0, y, line, fontsize=FONT if i == 0 else 8, color=COLOURS["ink" if i == 0 else "faint"])
    for bar in chart.bars:
        value = number(bar.spread.median)
        for line in textwrap.wrap(bar.label, int(WIDTH / LETTER) - len(value) - 2) or [""]:
            y += 1
            axes.text(0, y, line)
        axes.text(longest, y, value, ha="right", weight="bold")
        y += 0.7
        axes.barh(y, bar.spread.median, 0.7, color=COLOURS["c0" if bar.strong else "c3"])
        if bar.spread.most > bar.spread.least:
            whisker = [[bar.spread.median - bar.spread.least], [bar.spread.most - bar.spread.median]]
            axes.errorbar(bar.spread.median, y, xerr=whisker, color=COLOURS["ink"], capsize=3, linewidth=1)
        if bar.mark is not None:
            axes.plot([bar.mark] * 2, [y - 0.5, y + 0.5], color=COLOURS["mark"], linewidth=2)
        y += 0.6
    if head:
        y += 1
        axes.text(0, y, chart.unit + (f" (tick: {chart.mark})" if chart.mark else ""), color=COLOURS["faint"])
        y += 0.4
    axes.set_xlim(0, longest)
    axes.set_ylim(y, 0)
    figure.set_size_inches(WIDTH / 72, y * LINE / 72)
    return figure


def _curves(chart: Curves, head: Sequence[str]) -> Any:
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

    rows = 13 + len(head) + (len(chart.curves) if len(chart.curves) > 1 else 0)
    figure = Figure(figsize=(WIDTH / 72, rows * LINE / 72), layout="constrained")
    axes = figure.add_subplot()
    for i, (name, points) in enumerate(chart.curves.items()):
        xs, spreads = [x for x, _ in points], [spread for _, spread in points]
        whiskers = [[each.median - each.least for each in spreads], [each.most - each.median for each in spreads]]
        colour = COLOURS[LINES[i % len(LINES)]]
        middle = [each.median for each in spreads]
        axes.errorbar(xs, middle, yerr=whiskers, color=colour, marker="o", markersize=4, label=name)
    if chart.log:
        axes.set_xscale("log")
        axes.set_xticks(sorted({x for points in chart.curves.values() for x, _ in points}))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: short(x)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: number(y)))
    axes.set_ylim(bottom=0)
    axes.set_xlabel(chart.across)
    if head:
        figure.suptitle(head[0], x=0.01, ha="left", fontsize=FONT)
    axes.set_title("\n".join([*head[1:], chart.unit]), loc="left", fontsize=FONT - 1, color=COLOURS["faint"])
    axes.grid(axis="y")
    if len(chart.curves) > 1:
        figure.legend(loc="outside lower left", frameon=False)
    return figure
