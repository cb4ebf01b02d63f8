"""The one way this project measures throughput: contenders in turns, the same number of rounds each.

A turn opens a contender, discards its first batches, measures one interval and closes the contender, so that none of
its processes, threads or prefetched batches are there during another's turn. Turns go A B A B ..., which spreads the
noise of the machine over all contenders. The whole first round is discarded: it fills the page cache and compiles
what is compiled on first use.

An interval has images, seconds by the clock, and the processor seconds that this process and its children used; on a
machine with other work to do, trust the processor seconds. Figures are stored by benchmarks/measure/result.py.
"""

import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from tqdm import tqdm

from benchmarks.measure.machine import processor_seconds
from benchmarks.measure.progress import announce, watched
from shards.common.errors import ShardfeedError, UsageError

Clock = Callable[[], float]
Intervals = dict[str, list["Interval"]]

WARM_UP = 0.5  # seconds


@dataclass(frozen=True)
class Schedule:
    """How long to measure.

    rounds: intervals of each contender, the warm-up round not counted.
    seconds: least length of an interval.
    warm_up: batches discarded at the start of a turn, or twice the contender's depth if that is more. The warm-up also
        lasts half a second, or an interval if that is shorter: a fast contender is not warm after a few batches.
    """

    rounds: int = 5
    seconds: float = 5.0
    warm_up: int = 8

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise UsageError(f"--rounds must be 1 or more, not {self.rounds}")
        if not 0 < self.seconds < math.inf:
            raise UsageError(f"--seconds must be a number above 0, not {self.seconds:g}")
        if self.warm_up < 1:  # of which no command has an option
            raise UsageError(f"warm_up must be at least 1 batch, not {self.warm_up}")


@dataclass(frozen=True)
class Interval:
    """What one turn measured: images, seconds by the clock, and processor seconds over all its processes.

    Intervals with the same images and seconds are equal: no two runs take the same processor time.
    """

    images: float
    seconds: float
    cpu: float = field(default=0.0, compare=False)

    @property
    def images_per_s(self) -> float:
        return self.images / self.seconds

    @property
    def cpu_ms_per_image(self) -> float:
        """Milliseconds of one core that an image took."""
        return 1e3 * self.cpu / self.images


class Turns(Protocol):
    """What `measure` measures: something with a name that can take a turn."""

    @property
    def name(self) -> str: ...
    def turn(self, schedule: Schedule, clock: Clock) -> Interval: ...


def nothing() -> None:
    """The `sync` of work on a CPU, which is done when it returns."""


@dataclass(frozen=True)
class Contender:
    """An endless source of batches in this process.

    open: a context manager that starts it, gives an iterator of batches, and leaves nothing behind.
    images: the number of images in a batch; raises ShardfeedError for a batch of the wrong kind.
    depth: batches that it may hold ready; more than that are discarded at the start of a turn.
    stride: batches that tend to arrive together, as from workers that started together; an interval is a multiple of
        it, so that neither end cuts such a group.
    sync: waits for work that was only queued, as on a GPU; called before the clock is read at both ends of an interval.
    most: images after which a turn ends, those before the interval included: an epoch, where only the first one counts.
    """

    name: str
    open: Callable[[], AbstractContextManager[Iterator[Any]]]
    images: Callable[[Any], float]
    depth: int
    stride: int = 1
    sync: Callable[[], object] = nothing
    most: float | None = None

    def turn(self, schedule: Schedule, clock: Clock = time.perf_counter) -> Interval:
        """Starts the contender, warms it up, measures one interval and ends it."""
        skipped, warm = max(schedule.warm_up, 2 * self.depth), min(WARM_UP, schedule.seconds)
        if self.most is not None:
            warm = 0.0  # as little of the first epoch as can be goes uncounted
        images, count, before = 0.0, 0, 0.0
        with self.open() as batches:
            start = clock()
            for number, batch in enumerate(batches, 1):
                before += self.images(batch)
                if number >= skipped and number % self.stride == 0 and clock() - start >= warm:
                    break
            if self.most is not None and before >= self.most:
                raise ShardfeedError(f"{self.name}: an epoch is over before the warm-up is: measure more images")
            self.sync()
            cpu = processor_seconds()
            start = clock()
            for batch in batches:
                images += self.images(batch)
                count += 1
                if count % self.stride == 0 and clock() - start >= schedule.seconds:
                    break
                if self.most is not None and before + images >= self.most:
                    break
            self.sync()
            now = clock()
            cpu = processor_seconds() - cpu
        if not images or now <= start:
            raise ShardfeedError(f"{self.name} ended before it gave a batch to measure")
        return Interval(images, now - start, cpu)


@dataclass(frozen=True)
class Spread:
    """The median and the extremes of a figure over the rounds."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        return cls(statistics.median(values), min(values), max(values))


def measure(
    contenders: Sequence[Turns],
    schedule: Schedule,
    clock: Clock = time.perf_counter,
    keep: Callable[[Intervals], object] | None = None,
    failed: dict[str, str] | None = None,
) -> Intervals:
    """The intervals of each contender, by its name, in the order of the rounds.

    `keep`: called after each turn that counts, with as many intervals of each contender that has any, so that what is
    measured outlives this process. `failed`: where a contender that fails is noted, with the reason, while the others
    go on; without it the error is raised. Raises ShardfeedError where all have failed.
    """
    intervals: Intervals = {contender.name: [] for contender in contenders}
    turns = [contender for _ in range(schedule.rounds + 1) for contender in contenders]
    announce(
        f"in turns, {schedule.rounds} x {schedule.seconds:g} s each after a warm-up: {'; '.join(intervals)}",
        seconds=len(turns) * (schedule.seconds + 2 * WARM_UP),
    )

    def named(turn: Turns) -> str:
        return turn.name if turn.name in intervals else f"{turn.name} has failed"

    for turn in watched(turns, named, "turn"):
        if turn.name not in intervals:
            continue
        try:
            intervals[turn.name].append(turn.turn(schedule, clock))
        except Exception as error:
            if failed is None:
                raise
            failed[turn.name] = in_one_line(error)
            tqdm.write(f"{turn.name} failed, the others go on: {failed[turn.name]}", file=sys.stderr)
            del intervals[turn.name]
            continue
        counted = {name: found[1:] for name, found in intervals.items() if len(found) > 1}
        if keep is not None and counted:
            rounds = min(map(len, counted.values()))
            keep({name: found[:rounds] for name, found in counted.items()})
    if not intervals:
        raise ShardfeedError(f"all have failed: {'; '.join(f'{name}: {why}' for name, why in (failed or {}).items())}")
    return {name: found[1:] for name, found in intervals.items()}


def in_one_line(error: Exception) -> str:
    """What went wrong, with the kind of an error that is not ours."""
    kind = "" if isinstance(error, ShardfeedError) else f"{type(error).__name__}: "
    return f"{kind}{error}".strip().partition("\n")[0]
