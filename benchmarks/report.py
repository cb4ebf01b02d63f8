"""What a benchmark leaves behind: a table for people, a chart, and JSON as the last line and in a file.

Works on the JSON alone, so that what was measured once can be shown again.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.harness import Spread

Result = Mapping[str, Any]

# Ours is the last of the contenders.
OTHERS, OURS = "#9aa5b1", "#1f77b4"


def publish(result: Result, out: Path) -> Path:
    """Writes the chart and the JSON to `out` under names with benchmark and date, prints table, paths and JSON line.

    Adds the path of the chart to the JSON as "chart". Returns the path of the JSON.
    """
    out.mkdir(parents=True, exist_ok=True)
    stem = f"{result['benchmark']}-{result['date'][:19].replace(':', '')}"
    chart_path, json_path = out / f"{stem}.png", out / f"{stem}.json"
    full = {**result, "chart": str(chart_path)}
    chart(full, chart_path)
    json_path.write_text(json.dumps(full, indent=2) + "\n")
    print(table(full))
    print(f"\nchart  {chart_path}\nresult {json_path}\n")
    print(json.dumps(full))
    return json_path


def title(result: Result) -> str:
    """One line: what was delivered, by how many threads and processes."""
    shape = f"{result['batch_size']} x 3 x {result['size']} x {result['size']} {result['dtype']}"
    stored = result["stored"] if result["stored"] == "original" else f"{result['stored']}-px"
    return f"{shape} from {stored} JPEGs, {result['threads']} threads or {result['workers']} workers"


def setting(result: Result) -> str:
    """One line: on what it was measured, how often, when."""
    hardware = result["hardware"]
    gpu = "no GPU" if hardware["gpu"] is None else hardware["gpu"]
    return (
        f"{hardware['cpu']}, {hardware['cores']} cores, {gpu}; "
        f"{result['rounds']} rounds in turns of {result['seconds']:g} s; {result['date'][:10]}"
    )


def table(result: Result) -> str:
    """The figures in columns: median, least and most of the rounds, and the ratio round by round."""
    lines = [title(result), setting(result), "", f"{'images/s':<18}{'median':>10}{'least':>10}{'most':>10}"]
    for name, rounds in result["images_per_s"].items():
        spread = Spread.of(rounds)
        lines.append(f"{name:<18}{spread.median:>10,.0f}{spread.least:>10,.0f}{spread.most:>10,.0f}")
    for name, key in (("times the naive", "ratio"), ("times plain DALI", "ratio_to_plain_dali")):
        figures = (result[key], result[f"{key}_min"], result[f"{key}_max"])
        lines.append(f"{name:<18}" + "".join(f"{figure:>10.2f}" for figure in figures))
    return "\n".join(lines)


def chart(result: Result, path: Path) -> None:
    """Draws the medians as bars, with least and most as whiskers and every round as a dot, to a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    contenders = result["images_per_s"]
    for place, rounds in enumerate(contenders.values()):
        spread = Spread.of(rounds)
        colour = OURS if place == len(contenders) - 1 else OTHERS
        whiskers = [[spread.median - spread.least], [spread.most - spread.median]]
        axes.bar([place], [spread.median], yerr=whiskers, color=colour, width=0.55, capsize=8, zorder=2)
        axes.scatter([place] * len(rounds), rounds, s=9, color="black", zorder=3)
        axes.annotate(
            f"{spread.median:,.0f}",
            (place, spread.most),
            (0, 6),
            textcoords="offset points",
            ha="center",
            weight="bold",
        )
    axes.set_xticks(range(len(contenders)), list(contenders))
    axes.set_ylabel("images/s")
    axes.margins(y=0.12)
    axes.grid(axis="y", alpha=0.3, zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
    span = f"{result['ratio_min']:.1f} to {result['ratio_max']:.1f}"
    figure.suptitle(f"{result['ratio']:.1f} times the naive path's images per second ({span}, round by round)")
    axes.set_title(f"{title(result)}\n{setting(result)}", fontsize=8)
    figure.savefig(path)
