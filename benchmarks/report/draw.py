"""Draws charts with matplotlib: as SVG that takes its colours from the page's style sheet, and as PNG.

An SVG is drawn for a phone: as wide as its screen, each bar's label in a line of its own above the bar.
"""

import io
import re
import textwrap
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from PIL import Image

from benchmarks.report.charts import Bars, number

WIDTH = 320  # units of 1/72 inch; of the SVG, units of its view box
LINE = 15  # height of a line of text
FONT = 11
LETTER = 0.6 * FONT  # mean width of a letter
# Colours of the PNG. An SVG has the variable of the page's style sheet in place of each.
COLOURS = {"ink": "#1f2328", "c0": "#1f6feb", "c3": "#8c959f"}


def svg(chart: Bars) -> str:
    """The chart as an SVG element without a size, whose colours are the variables of the page."""
    settings: Any = {"font.size": FONT, "svg.fonttype": "none", "svg.hashsalt": "shardfeed"}
    file = io.StringIO()
    with matplotlib.rc_context(settings | {"text.color": COLOURS["ink"]}):
        _figure(chart).savefig(file, format="svg", transparent=True, metadata=dict.fromkeys(["Date", "Creator"]))
    drawn = file.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    for name, colour in COLOURS.items():
        drawn = drawn.replace(colour, f"var(--{name})")
    drawn = re.sub(r' id="[a-z0-9]+_\d+"', "", drawn)  # the next chart of the page has the same ones
    drawn = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font: \1px system-ui, sans-serif", drawn)
    drawn = re.sub(r' (?:width|height)="[\d.]+pt"', "", drawn, count=2)
    return drawn.replace("<svg ", f'<svg role="img" aria-label="{escape(chart.words(), quote=True)}" ', 1)


def _figure(chart: Bars) -> Figure:
    longest = max(bar.spread.most for bar in chart.bars) or 1.0
    figure = Figure()
    axes = figure.add_axes((0.01, 0, 0.98, 1))  # the vertical axis counts lines of text from the top
    axes.set_axis_off()
    y = 0.0
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
        y += 0.6
    axes.set_xlim(0, longest)
    axes.set_ylim(y, 0)
    figure.set_size_inches(WIDTH / 72, y * LINE / 72)
    return figure


def panels(charts: Sequence[Bars], path: Path, note: str = "") -> None:
    """Draws charts side by side to one small PNG, with the bars of one label in one row; `note` stands above them.

    Its background is white, so that it can be read on a dark page too; it has few colours, so that its file is small.
    """
    longest_first = sorted(charts, key=lambda chart: -len(chart.bars))
    labels = list(dict.fromkeys(bar.label for chart in longest_first for bar in chart.bars))
    figure = Figure(figsize=(2.2 + 1.9 * len(charts), 1.0 + 0.3 * len(labels)), dpi=100, layout="constrained")
    figure.suptitle("\n".join(textwrap.wrap(note, 20 + 30 * len(charts))), fontsize=8)
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
