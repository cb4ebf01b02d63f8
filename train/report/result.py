"""What a run reached: the value that training returns, and the same read from the files of a complete run."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shards.common.errors import ShardfeedError
from train.curves import METRICS, parse_lines
from train.report.metrics import TOTAL_TIME

WEIGHTS = "imagenet_trained_model.pth"


@dataclass(frozen=True)
class Result:
    """Accuracy on the held-out split in percent, the speed of training, and the file of the weights.

    top1, top5, loss: None where nothing was validated (--val-split none).
    """

    top1: float | None
    top5: float | None
    loss: float | None
    images_per_s: float
    train_seconds: float
    steps: int
    weights: Path


def read_result(out: Path) -> Result:
    """The result of the complete run in `out`. Raises ShardfeedError where its files are damaged or missing."""
    try:
        lines = parse_lines((out / METRICS).read_text(encoding="utf-8"), out / METRICS)
        with (out / TOTAL_TIME).open(newline="", encoding="utf-8") as file:
            total = next(csv.DictReader(file))
        validated: dict[str, Any] = {}
        for line in lines:
            if line["event"] == "validation":
                validated = line
        return Result(
            top1=validated.get("top1"),
            top5=validated.get("top5"),
            loss=validated.get("loss"),
            images_per_s=float(total["images_per_s"]),
            train_seconds=float(total["train_seconds"]),
            steps=max(int(line["step"]) for line in lines),
            weights=out / WEIGHTS,
        )
    except (OSError, ValueError, KeyError, TypeError, StopIteration) as error:
        raise ShardfeedError(
            f"the complete run in {out} has damaged files ({type(error).__name__}: {error}): choose another --out"
        ) from error


def complete_line(out: Path, result: Result) -> str:
    """What a command says that finds its own run complete."""
    figures = ""
    if result.top1 is not None and result.top5 is not None:
        top5 = f", top-5 {result.top5:.2f}%" if result.top5 < 100 else ""  # so it is with few classes
        figures = f" (top-1 {result.top1:.2f}%{top5})"
    return f"{out} holds this run, complete{figures}: nothing is left to train"
