"""python -m benchmarks accuracy --data DIR --source SOURCE: does this loader train as well as the usual one?

Trains the same recipe, network and steps, with the same evaluation, once with batches from this project's loader and
once from a DataLoader over SOURCE, the data set that the shards in DIR were made from, whose images Pillow decodes and
torchvision transforms; for each seed, in turns. Images have their full size from the first epoch. Five epochs of 10,000
CIFAR-10 images take about nine minutes on two cores without a GPU, so the six runs about an hour:

    python -m preprocess SOURCE DIR --image-column img --short-side 32
    python -m benchmarks accuracy --data DIR --source SOURCE --image-column img --size 32 --epochs 5
"""

import contextlib
import dataclasses
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measure.harness import Schedule
from benchmarks.measure.machine import sleep_while_waiting
from benchmarks.measure.progress import watched
from benchmarks.measure.result import Result, ResultFile, Series, Setting
from benchmarks.measure.settings import command_line
from benchmarks.report.table import show
from benchmarks.stages.recipe import configured
from shards.common.errors import UsageError
from shards.common.machine import usable_cores
from shards.dataset import TRAINING, VALIDATION, choose_split
from train.config import Config
from train.recipes import DEFAULT

if TYPE_CHECKING:
    from train.report.accuracy import Accuracy

OURS, USUAL = "shardfeed", "PIL and torchvision"


@dataclass(frozen=True)
class Options:
    """Trains with this project's loader and with a PIL and torchvision DataLoader, and compares the accuracies."""

    data: Path
    """Shards, as written by `python -m preprocess`."""
    source: str
    """The data set they were made from: anything that `python -m preprocess` takes, made-up images apart."""
    image_column: str = "image"
    """Column of SOURCE that holds the images."""
    label_column: str = "label"
    """Column of SOURCE that holds the labels."""
    recipe: str = DEFAULT
    """How to train: a function of train/recipes.py."""
    epochs: int | None = None
    """Passes over the training split; the recipe's if not given."""
    size: int | None = None
    """Side of the images in pixels; the recipe's if not given."""
    seeds: int = 3
    """Runs with each loader, with the seeds 0, 1, ..."""
    workers: int | None = None
    """Processes of the DataLoader; one a core if not given."""
    out: Path = Path("Results/benchmarks")
    """Directory for the JSON."""

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise UsageError(f"--seeds must be 1 or more, not {self.seeds}")
        if self.workers is not None and self.workers < 0:
            raise UsageError(f"--workers must be 0 or more, not {self.workers}")


def run(options: Options) -> None:
    """Trains, prints each accuracy and the means, and writes the result to options.out.

    Raises UsageError for data, a recipe or options that do not fit together.
    """
    # What is wrong with the options is said before torch and DALI are loaded, which takes seconds.
    config = configured(options.recipe, options.data, epochs=options.epochs, size=options.size)
    split = choose_split(config.data, [TRAINING], config.feeding.cache)
    held_out = choose_split(config.data, VALIDATION, config.feeding.cache)
    sleep_while_waiting()
    from tqdm import tqdm

    from benchmarks.peers.naive import open_rows
    from benchmarks.stages.both_loaders import ours, trained, usual
    from train.ranks.distributed import joined
    from train.run import set_up

    rows, held_out_rows = (
        open_rows(each, options.source, options.image_column, options.label_column) for each in (split, held_out)
    )
    workers = usable_cores() if options.workers is None else options.workers
    reached: dict[str, list[Accuracy]] = {OURS: [], USUAL: []}
    turns, times = [(seed, name) for seed in range(options.seeds) for name in reached], []
    with ResultFile(options.out) as file, joined("auto") as world:
        for seed, name in watched(turns, lambda turn: f"seed {turn[0]}, {turn[1]}", "run"):
            seeded = dataclasses.replace(config, seed=seed)
            network, setup = set_up(seeded, held_out, world)
            others = usual(rows, held_out_rows, held_out, setup, workers)
            opened = ours(split, held_out, setup) if name == OURS else contextlib.nullcontext(others)
            began = time.perf_counter()
            with opened as (batches, held_out_batches):
                accuracy = trained(network, setup, held_out, batches, held_out_batches)
            times.append(time.perf_counter() - began)
            reached[name].append(accuracy)
            tqdm.write(f"seed {seed}, {name}: top-1 {accuracy.top1:.2f}%, top-5 {accuracy.top5:.2f}%")
            if all(reached.values()):
                rounds = min(map(len, reached.values()))
                file.keep(summary(options, config, {name: each[:rounds] for name, each in reached.items()}, min(times)))
        whole = file.dated(summary(options, config, reached, min(times)))
    show(whole, options.out)


def summary(options: Options, config: Config, reached: dict[str, list["Accuracy"]], seconds: float) -> Result:
    """The accuracies, as a result."""
    here, there = (statistics.mean(accuracy.top1 for accuracy in reached[name]) for name in (OURS, USUAL))
    top1 = [Series(name, tuple(each.top1 for each in runs), "% top-1") for name, runs in reached.items()]
    top5 = [Series(f"{name}, top-5", tuple(each.top5 for each in runs), "% top-5") for name, runs in reached.items()]
    settings: dict[str, Setting] = {name: getattr(config, name) for name in ("recipe", "epochs", "size")}
    return Result.now(
        "accuracy",
        f"{config.model} at {config.size} pixels, {config.epochs} epochs, by the loader that it was trained with",
        command_line("accuracy", options),
        [*top1, *top5],
        schedule=Schedule(options.seeds, seconds),
        settings={**settings, "seeds": options.seeds, "difference in points": round(here - there, 3)},
        findings=[f"Mean top-1 {here:.2f}% ({OURS}) and {there:.2f}% ({USUAL}), {here - there:+.2f} points."],
    )
