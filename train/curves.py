"""python -m train.curves RUN...: draws each run's metrics.jsonl to RUN/curves.png, also while it still trains.

The curves are loss, accuracy, learning rate and images/s over the optimizer steps. A run draws them at its end.
"""

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from shards.common.atomic import replacing
from shards.common.cli import run as run_command
from shards.common.cli import show_result
from shards.common.errors import ShardfeedError, UsageError

METRICS = "metrics.jsonl"
PICTURE = "curves.png"

# Each panel: its title, and its curves: a label, and the event and key of their values in metrics.jsonl.
PANELS = (
    ("loss", (("training", "train", "loss"), ("validation", "validation", "loss"))),
    ("accuracy in percent", (("top-1", "validation", "top1"), ("top-5", "validation", "top5"))),
    ("learning rate", (("", "train", "lr"),)),
    ("images/s", (("", "train", "images_per_s"),)),
)
# Values among the first tenth are off the scale if they lie this many times the range of the others beyond it.
OUTLIER = 2


@dataclass(frozen=True)
class Options:
    """Draws the curves of training runs."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN...")]
    """Output directories of `python -m train`, finished or not."""

    def __post_init__(self) -> None:
        if not self.runs:
            raise UsageError("no runs to draw: give the --out of a training run")


def run(options: Options) -> None:
    """Draws each run and prints the path of its picture. Raises as `draw` does."""
    pictures = [draw(directory) for directory in options.runs]
    print(*pictures, sep="\n")
    show_result({"pictures": pictures})


def draw(directory: Path, lines: Sequence[dict[str, Any]] | None = None) -> Path:
    """Draws the curves of the run in `directory` into its curves.png, and returns that path.

    lines: the lines of its metrics.jsonl, if they were read before.
    Raises UsageError where there is no metrics.jsonl, ShardfeedError for a line of it that is damaged.
    """
    # Not pyplot: it would look for a window system.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = read_lines(directory / METRICS) if lines is None else lines
    panels = curves_of(lines, directory / METRICS)
    figure = Figure(figsize=(11, 7), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (title, curves), points in zip(figure.subplots(2, 2).flat, PANELS, panels, strict=True):
        for (label, event, _), (steps, values) in zip(curves, points, strict=True):
            # A run of one epoch has one point of accuracy, which a line without markers would not show.
            axes.plot(steps, values, label=label, marker="." if event == "validation" else "", linewidth=1.2)
        axis = axis_of([values for _, values in points])
        if axis is not None:
            axes.set_ylim(*axis)
            title += " (early values are off the scale)"
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("optimizer steps", fontsize=8)
        axes.grid(alpha=0.3)
        if len(curves) > 1:
            axes.legend(frameon=False, fontsize=8)
    figure.suptitle(directory.resolve().name)
    with replacing(directory / PICTURE) as file:
        figure.savefig(file, format="png")
    return directory / PICTURE


def axis_of(curves: Sequence[Sequence[float]]) -> tuple[float, float] | None:
    """The ends of a panel's axis where early values would squash the others; None for an axis that holds all."""
    finite = [[value for value in values if math.isfinite(value)] for values in curves]
    early = [value for values in finite for value in values[: -(-len(values) // 10)]]
    later = [value for values in finite for value in values[-(-len(values) // 10) :]]
    if not later:
        return None
    least, most = min(later), max(later)
    extent = most - least
    if not extent or all(least - OUTLIER * extent <= value <= most + OUTLIER * extent for value in early):
        return None
    return least - extent / 20, most + extent / 20


def curves_of(lines: Sequence[dict[str, Any]], path: Path) -> list[list[tuple[list[float], list[float]]]]:
    """The steps and values of each curve of each panel, from the lines of the file `path`.

    Raises ShardfeedError for a line whose step or value is no number.
    """
    return [[_points(lines, event, key, path) for _, event, key in curves] for _, curves in PANELS]


def _points(lines: Sequence[dict[str, Any]], event: str, key: str, path: Path) -> tuple[list[float], list[float]]:
    chosen = [(line.get("step"), line[key]) for line in lines if line.get("event") == event and key in line]
    try:
        steps = [float(require_number(step)) for step, _ in chosen]
        values = [math.nan if value is None else float(require_number(value)) for _, value in chosen]
    except (TypeError, OverflowError) as error:
        raise ShardfeedError(
            f"{path} is damaged: a step or the {key} of a line {event!r} is no number ({error})"
        ) from None
    return steps, values


def require_number(value: Any) -> float:
    """`value`, if it is an int or a float. Raises TypeError."""
    if type(value) not in (int, float):
        raise TypeError(f"it is {value!r:.50}")
    return value  # type: ignore[no-any-return]


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl, without a last line that is still being written."""
    if not path.is_file():
        raise UsageError(f"{path} is not a file: give the --out of a training run")
    return parse_lines(path.read_text(encoding="utf-8", errors="replace"), path)


def parse_lines(text: str, path: Path) -> list[dict[str, Any]]:
    """The lines of `text`, the content of `path`. Raises ShardfeedError for one that is no JSON object."""
    lines = []
    for number, line in enumerate(text.split("\n")[:-1], start=1):
        try:
            lines.append(json.loads(line))
        except (ValueError, RecursionError) as error:
            raise ShardfeedError(f"{path} is damaged: line {number} is not JSON ({error})") from None
        if not isinstance(lines[-1], dict):
            raise ShardfeedError(f"{path} is damaged: line {number} is no JSON object")
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status."""
    return run_command("python -m train.curves", Options, run, argv)


if __name__ == "__main__":
    sys.exit(main())
