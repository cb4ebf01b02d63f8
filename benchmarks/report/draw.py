"""Draws charts with matplotlib, side by side in one PNG."""

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from benchmarks.report.charts import Bars
from benchmarks.report.table import number

STRONG, OTHER = "#1f6feb", "#8c959f"


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
            axes.barh(row, spread.median, 0.55, xerr=whisker, capsize=3, color=STRONG if bar.strong else OTHER)
            axes.annotate(
                number(spread.median), (spread.most, row), (6, 0), textcoords="offset points", va="center", fontsize=8
            )
        title, axis = chart.title, chart.axis
        if axis is None:
            axes.set_xlim(0, 1.35 * max(bar.spread.most for bar in chart.bars))
        else:
            axes.set_xscale("log")
            axes.set_xlim(axis[0], axis[1] * (axis[1] / axis[0]) ** 0.35)
            title += " (logarithmic)"
        axes.set_title(title, fontsize=9, wrap=True)
        axes.set_yticks(range(len(labels)), labels)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(axis="x", which="both", labelbottom=False, length=0)
        axes.tick_params(axis="y", labelsize=9)
    figure.axes[0].invert_yaxis()
    drawn = io.BytesIO()
    figure.savefig(drawn)
    Image.open(drawn).convert("RGB").quantize(32).save(path, format="PNG", optimize=True)
