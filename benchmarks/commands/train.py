"""python -m benchmarks train --data DIR --recipe R: does training wait for its data?

Runs the trainer's own optimizer steps (`train_epoch`), in turns, on

- the real epoch: batches as the loader makes them while the network computes;
- one cached batch of it, over and over: a loader without any cost;
- random pixels made once on the device: the same without any image.

Real divided by cached is what feeding costs: waiting, and the cores and memory bandwidth that the loader takes from the
nettask. The goal is 0.97 where the network's work dominates. On two cores without a GPU this takes about three minutes:

    python -m benchmarks train --data DIR --recipe cnn --batch 16 --micro-batch 8 --steps 1 --rounds 3
"""

import contextlib
import dataclasses
import functools
import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.measure.harness import Clock, Interval, Schedule, Spread, measure, ratios
from benchmarks.measure.machine import processor_seconds, sleep_while_waiting
from benchmarks.measure.result import Ratio, Result, Series, write
from benchmarks.measure.settings import command_line
from shards import Split
from shards.common.errors import UsageError
from shards.dataset import choose_split
from train.config import Config, Device
from train.data import TRAINING, training_loader
from train.engine import train_epoch
from train.optim.batch_split import portions, steps_per_epoch
from train.optim.gpu_memory import choose_micro_batch
from train.optim.optimizer import choose_dtype
from train.ranks.distributed import World, joined
from train.recipes import DEFAULT, find_recipe
from train.report.metrics import Recorder
from train.run import begin, make_network

REAL, CACHED, SYNTHETIC = "real epoch", "cached batch", "synthetic batch"
GOAL = 0.97

Batch = tuple[Tensor, Tensor]
Endless = Callable[[], AbstractContextManager[Iterator[Batch]]]


@dataclass(frozen=True)
class Options:
    """Compares training on a data set with the same steps on one cached batch and on random pixels, in turns."""

    data: Path
    """Shards, as written by `python -m preprocess`."""
    recipe: str = DEFAULT
    """How to train: a function of train/recipes.py."""
    size: int | None = None
    """Side of the images in pixels; the recipe's if not given."""
    batch: int | None = None
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
    """Least length of a each."""
    out: Path = Path("results")
    """Directory for the JSON."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UsageError(f"--steps must be 1 or more, not {self.steps}")


@dataclass(frozen=True)
class TrainingTask:
    """What every contender does: `steps` optimizer steps at a time, as `config` says."""

    config: Config
    classes: int
    world: World
    dtype: torch.dtype
    steps: int


@dataclass(frozen=True)
class Steps:
    """The next micro-batches of an endless stream, as an epoch of that length."""

    stream: Iterator[Batch]
    micro_batches: int

    def __len__(self) -> int:
        return self.micro_batches

    def __iter__(self) -> Iterator[Batch]:
        return itertools.islice(self.stream, self.micro_batches)


@dataclass(frozen=True)
class Training:
    """Training from a fresh network on the batches that `open` gives; takes turns with others."""

    name: str
    task: TrainingTask
    open: Endless
    waited: list[float] = field(default_factory=list)
    """The share of each turn in which training waited for data, in percent; the first is the warm-up round's."""

    def turn(self, schedule: Schedule, clock: Clock = time.perf_counter) -> Interval:
        """Trains one pass as a warm-up, then passes until `schedule.seconds` are over."""
        task, silent = self.task, Recorder(None, {})
        micro_batches = task.steps * portions(task.config, task.world).accumulate
        network = make_network(task.config, task.classes, task.world)
        run = begin(network, task.config, task.world, task.dtype, micro_batches)
        with self.open() as stream:
            epoch = functools.partial(train_epoch, run, Steps(stream, micro_batches), task.config, task.world, silent)
            epoch(1)  # ends with reading the losses, for which a GPU has to finish
            before, cpu, start = run.clock.read(), processor_seconds(), clock()
            for number in itertools.count(2):
                epoch(number)
                now = clock()
                if now - start >= schedule.seconds:
                    break
            cpu = processor_seconds() - cpu
        trained = run.clock.read() - before
        self.waited.append(trained.wait_percent)
        return Interval(trained.images, now - start, cpu)


def run(options: Options) -> None:
    """Measures, prints the table and, as the last line, the JSON, and writes that to options.out.

    Raises UsageError for data, a recipe or options that do not fit together.
    """
    sleep_while_waiting()
    schedule, config = Schedule(options.rounds, options.seconds), configuration(options)
    split = choose_split(options.data, [TRAINING])
    options.out.mkdir(parents=True, exist_ok=True)  # fail on a wrong path before measuring, not after
    with joined(options.device) as world:
        dtype = choose_dtype(config, world.device)
        network = make_network(config, len(split.class_names), world)
        config = choose_micro_batch(network, config, world, dtype)
        del network
        with training_loader(split, config, world, dtype) as loader:
            cached = next(iter(loader))
            epoch = steps_per_epoch(len(loader), portions(config, world).accumulate)
        task = TrainingTask(config, len(split.class_names), world, dtype, min(options.steps, epoch))
        synthetic = (torch.randn_like(cached[0]), torch.randint_like(cached[1], task.classes))
        contenders = [
            Training(REAL, task, functools.partial(_real, split, task)),
            Training(CACHED, task, functools.partial(_repeated, cached)),
            Training(SYNTHETIC, task, functools.partial(_repeated, synthetic)),
        ]
        intervals = measure(contenders, schedule)
    result = summary(options, task, schedule, intervals, {each.name: each.waited[1:] for each in contenders})
    path = write(result, options.out)
    print(f"{table(result)}\n\nresult {path}\n\n{result.as_json()}")


def configuration(options: Options) -> Config:
    """The recipe with the options' values in place of its own, and with images at their full size from the first epoch.

    Raises UsageError for values that make no sense.
    """
    given = {name: getattr(options, name) for name in ("size", "batch", "micro_batch", "threads")}
    changes = {name: value for name, value in given.items() if value is not None}
    recipe = find_recipe(["--recipe", options.recipe])(options.data)
    sizes = dataclasses.replace(recipe.sizes, start_size=None)
    return dataclasses.replace(recipe, device=options.device, sizes=sizes, **changes)


def summary(
    options: Options,
    task: TrainingTask,
    schedule: Schedule,
    intervals: dict[str, list[Interval]],
    waited: dict[str, list[float]],
) -> Result:
    """What was measured, as a result."""
    portion, config = portions(task.config, task.world), task.config
    speed = [
        Series(
            name,
            tuple(_short(each.images_per_s) for each in turns),
            cpu_ms=tuple(_short(each.cpu_ms_per_image) for each in turns),
        )
        for name, turns in intervals.items()
    ]
    waits = [Series(f"{name}, data-wait", tuple(round(each, 2) for each in waited[name]), "%") for name in intervals]
    precision = str(task.dtype).removeprefix("torch.")
    return Result.now(
        "train",
        f"{config.model} at {config.size} pixels, {precision}, {config.batch} images a step in micro-batches of "
        f"{portion.micro_batch}",
        command_line("train", options),
        [*speed, *waits],
        schedule=schedule,
        ratios=[_ratio(intervals, CACHED), _ratio(intervals, SYNTHETIC)],
        settings={
            "recipe": config.recipe,
            "model": config.model,
            "size": config.size,
            "batch": config.batch,
            "micro_batch": portion.micro_batch,
            "precision": precision,
            "steps": task.steps,
            "threads": config.threads,
            "goal": GOAL,
        },
    )


def _ratio(intervals: dict[str, list[Interval]], base: str) -> Ratio:
    spread = ratios(intervals[base], intervals[REAL])
    return Ratio(REAL, base, *(round(each, 3) for each in (spread.median, spread.least, spread.most)))


def _short(value: float) -> float:
    """Five digits: on a CPU an image may take seconds, which one decimal would not show."""
    return float(f"{value:.5g}")


def table(result: Result) -> str:
    """The figures in columns: median, least and most over the rounds."""
    lines = [result.title, f"{result.rounds} rounds in turns of at least {result.seconds:g} s", ""]
    lines.append(f"{'':<36}{'median':>11}{'least':>11}{'most':>11}")
    for series in result.series:
        lines.append(_row(f"{series.name}, {series.unit}", series.spread, 2))
        if series.cpu_ms:
            lines.append(_row(f"{series.name}, core-ms an image", Spread.of(series.cpu_ms), 2))
    for ratio in result.ratios:
        lines.append(_row(f"{ratio.of} / {ratio.to}", Spread(ratio.median, ratio.least, ratio.most), 3))
    return "\n".join(lines)


def _row(name: str, spread: Spread, digits: int) -> str:
    return f"{name:<36}" + "".join(f"{each:>11,.{digits}f}" for each in (spread.median, spread.least, spread.most))


@contextlib.contextmanager
def _real(split: Split, task: TrainingTask) -> Iterator[Iterator[Batch]]:
    with training_loader(split, task.config, task.world, task.dtype) as loader:
        yield itertools.chain.from_iterable(itertools.repeat(loader))


@contextlib.contextmanager
def _repeated(batch: Batch) -> Iterator[Iterator[Batch]]:
    yield itertools.repeat(batch)
