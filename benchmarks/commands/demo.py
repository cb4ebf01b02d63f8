"""python -m benchmarks demo: the whole project once, on a small synthetic data set.

Makes images, shards them, draws a batch, trains, evaluates, and compares the loader with the naive path. It prints each
command before running it, so that the demo is also the manual. About four minutes on two cores without a GPU. The last
line is JSON.
"""

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.measure.harness import Schedule
from benchmarks.processes.command import run_command
from preprocess.synthetic import SyntheticSource
from shards.common.atomic import refuse_unwritable
from shards.common.errors import UsageError
from train.recipes import find_recipe


@dataclass(frozen=True)
class Options:
    """Runs the whole project once: makes images, shards, a preview, trains, evaluates, benchmarks."""

    out: Path = Path("demo")
    """Directory for everything the demo makes; images and shards that exist are used again."""
    train: int = 2000
    """Synthetic images to train on."""
    validation: int = 500
    """Synthetic images to evaluate on."""
    recipe: str = "demo"
    """How to train: a function of train/recipes.py."""
    seconds: float = 2.0
    """Length of a measuring interval of the loader benchmark."""


def run(options: Options) -> None:
    """Runs the commands. Raises ShardfeedError when one fails."""
    if options.out.exists() and not options.out.is_dir():
        raise UsageError(f"{options.out} is a file: give a directory")
    refuse_unwritable("--out", options.out, directory=True)
    # Mistakes that would otherwise show minutes later, in the command that needs the value.
    find_recipe(["--recipe", options.recipe])
    SyntheticSource(train=options.train, validation=options.validation)
    Schedule(seconds=options.seconds)
    images, shards = options.out / "images", options.out / "shards"
    # Every run trains into a directory of its own: results are never overwritten.
    results = options.out / f"run-{datetime.now():%Y%m%dT%H%M%S}"
    weights, preview = results / "imagenet_trained_model.pth", results / "preview.png"

    counts = ["--train", str(options.train), "--validation", str(options.validation)]
    run_command("preprocess.synthetic", str(images), *counts)
    run_command("preprocess", str(images), str(shards))
    run_command("shards", "info", str(shards))
    run_command("train", "--data", str(shards), "--recipe", options.recipe, "--out", str(results))
    evaluation = ["--data", str(shards), "--recipe", options.recipe, "--evaluate", str(weights)]
    accuracy = _json_of(run_command("train", *evaluation))
    run_command("shards", "preview", str(shards), "--output", str(preview))
    interval = ["--seconds", f"{options.seconds:g}", "--out", str(results)]
    speed = _json_of(run_command("benchmarks", "loaders", "--data", str(shards), "--source", str(images), *interval))

    summary: dict[str, Any] = {
        "top1": round(accuracy["top1"], 2),
        "top5": round(accuracy["top5"], 2),
        "naive_images_per_s": speed["naive_images_per_s"],
        "loader_images_per_s": speed["loader_images_per_s"],
        "ratio": speed["ratio"],
        "model": str(weights),
        "log": str(results / "metrics.jsonl"),
        "plot": speed["chart"],
        "preview": str(preview),
    }
    print(f"\ntop-1     {accuracy['top1']:.1f}% of the held-out images, top-5 {accuracy['top5']:.1f}%")
    print(f"naive     {summary['naive_images_per_s']:,.0f} images/s (HF dataset, PIL, torchvision, DataLoader)")
    print(f"loader    {summary['loader_images_per_s']:,.0f} images/s from shards: {summary['ratio']:.1f} times")
    for name in ("model", "log", "plot", "preview"):
        print(f"{name:<9} {summary[name]}")
    print(f"\n{json.dumps(summary)}")


def _json_of(lines: list[str]) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(lines[-1])
    return result
