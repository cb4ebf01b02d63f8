"""The model's stage: the trainer's own optimizer steps on real, cached or synthetic batches, taking turns."""

import contextlib
import dataclasses
import functools
import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from benchmarks.measure.harness import Clock, Interval, Schedule
from benchmarks.measure.machine import processor_seconds
from benchmarks.measure.progress import announce
from benchmarks.measure.result import Setting
from benchmarks.peers.shardfeed import chosen
from shards import Split
from shards.decode.tensors import Batch
from train.data import training_loader
from train.engine import train_epoch
from train.optim.batch_split import BatchSplit
from train.report.metrics import Recorder
from train.run import Setup, begin, make_network


@dataclass(frozen=True)
class TrainingTask:
    """What every contender does: `steps` optimizer steps at a time, as `setup` says. decoding: what decodes, how."""

    setup: Setup
    classes: int
    steps: int
    decoding: Mapping[str, Setting] = field(default_factory=dict)


def training_task(split: Split, setup: Setup, steps: int) -> tuple[TrainingTask, Batch]:
    """The task, with at most an epoch's steps, and one batch of the split."""
    with training_loader(split, setup) as loader:
        cached = next(iter(loader))
        epoch = setup.batch.steps(len(loader))
        decoding = chosen(loader._feed.config.graph)
    return TrainingTask(setup, len(split.class_names), min(steps, epoch), decoding), cached


@dataclass(frozen=True)
class Training:
    """Training from a fresh network on the batches that `open` gives."""

    name: str
    task: TrainingTask
    open: Callable[[], AbstractContextManager[Iterator[Batch]]]
    waited: list[float] = field(default_factory=list)
    """The share of each turn in which training waited for data, in percent."""

    def turn(self, schedule: Schedule, clock: Clock = time.perf_counter) -> Interval:
        """Trains one pass as a warm-up, then passes until `schedule.seconds` are over."""
        task, silent = self.task, Recorder(None, {})
        setup, micro_batches = task.setup, task.steps * task.setup.batch.accumulate
        run = begin(make_network(setup.config, task.classes, setup.world), setup, micro_batches)
        with self.open() as stream:
            epoch = functools.partial(train_epoch, run, Steps(stream, micro_batches), silent)
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


@dataclass(frozen=True)
class Steps:
    """The next micro-batches of an endless stream, as an epoch of that length."""

    stream: Iterator[Batch]
    micro_batches: int

    def __len__(self) -> int:
        return self.micro_batches

    def __iter__(self) -> Iterator[Batch]:
        return itertools.islice(self.stream, self.micro_batches)


@contextlib.contextmanager
def real(split: Split, task: TrainingTask) -> Iterator[Iterator[Batch]]:
    """Batches of the loader, epoch after epoch."""
    with training_loader(split, task.setup) as loader:
        yield itertools.chain.from_iterable(itertools.repeat(loader))


@contextlib.contextmanager
def repeated(batch: Batch) -> Iterator[Iterator[Batch]]:
    """One batch, over and over."""
    yield itertools.repeat(batch)


def ready_images_per_s(setup: Setup, split: Split, seconds: float) -> float:
    """Images/s of training on a batch that lies ready, for `seconds`; on a CPU one micro-batch at a time."""
    on_gpu = setup.world.on_gpu
    if not on_gpu:  # a whole step may take many seconds there, of which updating the weights is little
        size = setup.batch.micro_batch
        setup = dataclasses.replace(
            setup, config=dataclasses.replace(setup.config, batch=size), batch=BatchSplit(size, 1)
        )
    announce(f"the model, on {'the GPU' if on_gpu else 'this CPU, where one step may take longer'}", 2 * seconds)
    task, cached = training_task(split, setup, steps=20 if on_gpu else 1)
    return Training("cached batch", task, lambda: repeated(cached)).turn(Schedule(1, seconds)).images_per_s
