"""python -m benchmarks train --data DIR --recipe R: does training wait for its data?

Runs the trainer's own optimizer steps (`train_epoch`), in turns, on

- the real epoch: batches as the loader makes them while the network computes;
- one cached batch of it, over and over: a loader without any cost;
- random pixels made once on the device: the same without any image.

Real divided by cached is what feeding costs: waiting, and the cores and memory bandwidth that the loader takes from the
network. The goal is 0.97 where the network's work dominates. On two cores without a GPU this takes about three minutes:

    python -m benchmarks train --data DIR --recipe cnn --batch-size 16 --micro-batch 8 --steps 1 --rounds 3
"""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from benchmarks.measure.harness import Intervals, Schedule, measure
from benchmarks.measure.machine import sleep_while_waiting
from benchmarks.measure.result import Ratio, Result, ResultFile, Series, Setting
from benchmarks.measure.settings import command_line
from benchmarks.report.table import show
from benchmarks.stages.recipe import configured
from shards.common.errors import UsageError
from shards.dataset import TRAINING, choose_split
from train.config import Config, Device
from train.recipes import DEFAULT

if TYPE_CHECKING:
    from benchmarks.stages.training import TrainingTask

REAL, CACHED, SYNTHETIC = "real epoch", "cached batch", "synthetic batch"
GOAL = 0.97


@dataclass(frozen=True)
class Options:
    """Compares training on a data set with the same steps on one cached batch and on random pixels, in turns."""

    data: Path
    """Shards, as written by `python -m preprocess`."""
    recipe: str = DEFAULT
    """How to train: a function of train/recipes.py."""
    size: int | None = None
    """Side of the images in pixels; the recipe's if not given."""
    batch: Annotated[int | None, tyro.conf.arg(name="batch-size", aliases=("--batch",))] = None
    """Images per optimizer step; the recipe's if not given."""
    micro_batch: int | None = None
    """Most images computed at a time; the recipe's if not given."""
    device: Device = "auto"
    """auto: a GPU where there is one."""
    threads: int | None = None
    """Decoding threads; the loader's own default if not given."""
    steps: int = 20
    """Optimizer steps at a time, or those of an epoch if that has fewer; as many are the warm-up of each turn."""
    rounds: int = Schedule.rounds
    """Measuring intervals of each, after a warm-up round that is not counted."""
    seconds: float = Schedule.seconds
    """Least length of each, in seconds."""
    out: Path = Path("Results/benchmarks")
    """Directory for the JSON."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UsageError(f"--steps must be 1 or more, not {self.steps}")


def run(options: Options) -> None:
    """Measures, prints the table, and writes the result to options.out.

    Raises UsageError for data, a recipe or options that do not fit together.
    """
    # What is wrong with the options is said before torch and DALI are loaded, which takes seconds.
    schedule, config = Schedule(options.rounds, options.seconds), configuration(options)
    split = choose_split(options.data, [TRAINING])
    sleep_while_waiting()
    import torch

    from benchmarks.stages.training import Training, real, repeated, training_task
    from train.ranks.distributed import joined
    from train.run import set_up

    with ResultFile(options.out) as file, joined(options.device) as world:
        _, setup = set_up(config, len(split.class_names), world)
        task, cached = training_task(split, setup, options.steps)
        synthetic = (torch.randn_like(cached[0]), torch.randint_like(cached[1], task.classes))
        contenders = [
            Training(REAL, task, functools.partial(real, split, task)),
            Training(CACHED, task, functools.partial(repeated, cached)),
            Training(SYNTHETIC, task, functools.partial(repeated, synthetic)),
        ]

        def result(intervals: Intervals) -> Result:
            waited = {each.name: each.waited[1:][: len(intervals[each.name])] for each in contenders}
            return summary(options, task, schedule, intervals, waited)

        def keep(intervals: Intervals) -> None:
            if len(intervals) == len(contenders):  # the figures are of one beside the other
                file.keep(result(intervals))

        whole = file.dated(result(measure(contenders, schedule, keep=keep)))
    show(whole, options.out)


def configuration(options: Options) -> Config:
    """The recipe with the options' values in place of its own. Raises UsageError for values that make no sense."""
    given = {name: getattr(options, name) for name in ("size", "batch", "micro_batch", "device", "threads")}
    return configured(options.recipe, options.data, **given)


def summary(
    options: Options,
    task: "TrainingTask",
    schedule: Schedule,
    intervals: Intervals,
    waited: dict[str, list[float]],
) -> Result:
    """What was measured, as a result."""
    config, micro_batch = task.setup.config, task.setup.batch.micro_batch
    precision = str(task.setup.dtype).removeprefix("torch.")
    settings: dict[str, Setting] = {name: getattr(config, name) for name in ("recipe", "model", "size", "batch")}
    settings |= {"micro_batch": micro_batch, "precision": precision, "steps": task.steps, "threads": config.threads}
    settings |= task.decoding
    speed = {name: Series.of(name, turns) for name, turns in intervals.items()}
    waits = [Series(f"{name}, data-wait", tuple(round(each, 2) for each in waited[name]), "%") for name in intervals]
    ratios = [Ratio.between(speed[REAL], speed[base]) for base in (CACHED, SYNTHETIC)]
    goal = f"The real epoch is {ratios[0].median:.2f} times as fast as a cached batch; the goal is {GOAL} or more."
    return Result.now(
        "train",
        f"{config.model} at {config.size} pixels, {precision}, {config.batch} images a step in micro-batches of "
        f"{micro_batch}",
        command_line("train", options),
        [*speed.values(), *waits],
        schedule=schedule,
        ratios=ratios,
        settings=settings,
        findings=[goal],
    )
