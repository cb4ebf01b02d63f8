"""`python -m train --data DIR --recipe R --find-lr`: a learning-rate range test (Smith, arXiv:1506.01186).

The learning rate grows from step to step by a constant factor until the loss grows too. The run writes OUT/find_lr.csv
and OUT/find_lr.png. The suggestion is the rate at which the loss fell fastest, over the logarithm of the rate: a first
value for --max-lr, not a measured optimum.
"""

import contextlib
import csv
import itertools
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from model.networks import train_mode
from shards.common.errors import ShardfeedError
from shards.common.terminal import counted, wrapped
from train.config import Config
from train.data import training_loader, training_split
from train.optim.gpu_memory import memory_advice
from train.ranks.distributed import joined, sum_over_ranks
from train.report.header import network_line, split_words, step_words
from train.report.progress import bar_disabled, log_lines
from train.run import begin, set_up
from train.step import accumulate, update

TABLE, PICTURE = "find_lr.csv", "find_lr.png"

STEPS = 100
FEWEST = 10
FIRST, LAST = 1e-6, 10.0
# The test ends when the smoothed loss is so many times its least value.
RISE = 3.0
# Weight of the earlier losses in the smoothed one.
SMOOTHING = 0.9


@dataclass(frozen=True)
class Suggestion:
    """The learning rate found, the number of steps tried, and the picture."""

    max_lr: float
    steps: int
    picture: Path


def find_lr(config: Config) -> Suggestion:
    """Runs the test and writes its files.

    Raises ShardfeedError where the loss never fell, or the split has too few images.
    """
    config.out.mkdir(parents=True, exist_ok=True)  # before the test, so that a wrong --out fails at once
    split = training_split(config)
    with joined(config.device, config.memory.offload) as world:
        network, setup = set_up(config, split, world)
        count = setup.batch.accumulate
        with memory_advice(config, setup.batch.micro_batch, world.size), training_loader(split, setup) as loader:
            run = begin(network, setup, micro_batches=len(loader))
            train_mode(network, run.learner.parallel, frozen=config.start.freeze)
            # Each iteration over the loader is the next epoch. Steps go on across the epochs' ends.
            epochs = itertools.repeat(loader, math.ceil(STEPS * count / len(loader)))
            micro_batches = itertools.chain.from_iterable(epochs)
            steps = min(STEPS, math.ceil(STEPS * count / len(loader)) * len(loader) // count)
            rates, losses = np.geomspace(FIRST, LAST, steps).tolist(), list[float]()
            if world.is_main:
                tqdm.write(wrapped(f"data: {split_words(split, None)}"))
                tried = f"at most {counted(steps, 'step')} of {step_words(setup)}, learning rates {FIRST:g} to {LAST:g}"
                tqdm.write(wrapped(f"{network_line(run)}; {tried}"))
            lines = log_lines(world)
            with _interrupts_said(config.out):
                for lr in tqdm(rates, desc="learning rates", unit=" steps", disable=bar_disabled(world)):
                    if lines.due():
                        line = f"step {len(losses)} of at most {steps}: learning rate {lr:.2g}, loss {losses[-1]:.3f}"
                        tqdm.write(line, file=sys.stderr)
                    for group in run.learner.optimizer.param_groups:
                        group["lr"] = lr * group["initial_lr"] / run.learner.optimizer.param_groups[0]["initial_lr"]
                    loss, images = accumulate(run, itertools.islice(micro_batches, count), count)
                    losses.append(float(sum_over_ranks(loss, world)) / images / world.size)
                    if not math.isfinite(losses[-1]) or (smooth(losses)[-1] > RISE * min(smooth(losses))):
                        break
                    update(run, images)
        suggestion = suggest(rates[: len(losses)], smooth(losses))
        if world.is_main:
            _write(config.out, rates, losses, suggestion)
    return Suggestion(suggestion, len(losses), config.out / PICTURE)


@contextlib.contextmanager
def _interrupts_said(out: Path) -> Iterator[None]:
    """Gives Ctrl-C in the block a message: what was written."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted: the range test was not finished, and no file was written to {out}"
        ) from None


def smooth(losses: Sequence[float]) -> list[float]:
    """The exponential moving average, corrected for its start at 0."""
    smoothed, average = [], 0.0
    for number, loss in enumerate(losses, start=1):
        average = SMOOTHING * average + (1 - SMOOTHING) * loss
        smoothed.append(average / (1 - SMOOTHING**number))
    return smoothed


def suggest(rates: Sequence[float], smoothed: Sequence[float]) -> float:
    """The learning rate at which the smoothed loss falls fastest, on its last way down to its least value.

    What it does before is noise of the batches: at the first rates it cannot fall. Raises ShardfeedError if the loss
    does not fall by more than that noise.
    """
    finite = np.asarray([loss if math.isfinite(loss) else math.inf for loss in smoothed])
    lowest = int(np.argmin(finite))
    first = finite[len(finite) // 20 : max(FEWEST // 2, len(finite) // 4)]
    with np.errstate(invalid="ignore"):  # infinite from the first rates on: then the noise is NaN, and nothing falls
        start, noise = float(np.median(first)), float(first.max() - first.min())
    drop = start - float(finite[lowest])
    if lowest < FEWEST // 2 or not drop > 2 * noise:
        raise ShardfeedError(
            "the loss fell at no learning rate by more than its noise: is the batch large enough, and are the labels "
            "right? Look at the first lines of metrics.jsonl of a short run"
        )
    begin = int(np.flatnonzero(finite[:lowest] >= start - drop / 4)[-1])
    slopes = np.gradient(finite[begin : lowest + 1], np.log(np.asarray(rates[begin : lowest + 1])))
    return float(rates[begin + int(np.argmin(slopes))])


def _write(out: Path, rates: Sequence[float], losses: Sequence[float], suggestion: float) -> None:
    from matplotlib.figure import Figure

    with (out / TABLE).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("lr", "loss", "smoothed"))
        writer.writerows(zip(rates, losses, smooth(losses), strict=False))
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(rates[: len(losses)], losses, alpha=0.3, label="loss")
    axes.plot(rates[: len(losses)], smooth(losses), label="smoothed")
    axes.axvline(suggestion, color="black", linestyle=":", label=f"steepest: {suggestion:.2g}")
    axes.set(xscale="log", xlabel="learning rate", ylabel="loss per image", ylim=(0, 2 * losses[0]))
    axes.legend()
    figure.savefig(out / PICTURE, dpi=120)
