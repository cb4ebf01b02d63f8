"""The one way this project measures throughput: contenders in turns, the same number of rounds each.

A turn opens a contender, throws its first batches away, measures one window of a given length and
closes it again, so that nothing of it (worker processes, threads, prefetched batches) is there
during another's turn. Contenders take turns in the order given, A B A B ..., which spreads whatever
else the machine does over all of them. The whole first round is thrown away: it fills the page
cache and compiles what is compiled when first used.

A window knows its images, its seconds by the clock, and the processor seconds that this process and its
children used meanwhile; on a machine that does other things too, trust the processor seconds. What
the figures are written down as is in benchmarks/measure/result.py.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from tqdm import tqdm

from benchmarks.measure.processor import processor_seconds
from shards.common.errors import ShardfeedError, UsageError

Clock = Callable[[], float]

WARM_UP = 0.5  # seconds


@dataclass(frozen=True)
class Schedule:
    """How long to measure.

    rounds: windows of each contender, the warm-up round not counted.
    seconds: least length of a window.
    warm_up: batches thrown away at the start of a turn, or twice the contender's depth if that is more; and as many
        more as half a second holds, or a window if that is shorter: what is fast is not warm after a few batches.
    """

    rounds: int = 5
    seconds: float = 5.0
    warm_up: int = 8

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise UsageError(f"rounds must be at least 1, not {self.rounds}")
        if self.seconds <= 0:
            raise UsageError(f"seconds must be more than 0, not {self.seconds:g}")
        if self.warm_up < 1:
            raise UsageError(f"warm_up must be at least 1 batch, not {self.warm_up}")


@dataclass(frozen=True)
class Window:
    """What one turn measured: images, seconds by the clock, and processor seconds over all processes of it.

    Two windows are equal if images and seconds are: no two runs take the same processor time.
    """

    images: int
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
    def turn(self, schedule: Schedule, clock: Clock) -> Window: ...


def nothing() -> None: ...


@dataclass(frozen=True)
class Contender:
    """Something that gives batches without end, in this process.

    open: a context manager that starts it, gives an iterator of batches, and leaves nothing behind.
    images: how many images a batch holds; raises ShardfeedError for a batch that is not what was asked for.
    depth: how many batches it may hold ready; more than that are thrown away at the start of a turn.
    stride: batches that tend to come at once, as from workers that started together; a window is
        a multiple of it, so that neither end cuts such a group.
    sync: waits for work that was only queued, as on a GPU; called before the clock is read at both ends of
        a window.
    """

    name: str
    open: Callable[[], AbstractContextManager[Iterator[Any]]]
    images: Callable[[Any], int]
    depth: int
    stride: int = 1
    sync: Callable[[], object] = nothing

    def turn(self, schedule: Schedule, clock: Clock = time.perf_counter) -> Window:
        """Starts it, warms it up, measures one window and ends it."""
        skipped, warm = max(schedule.warm_up, 2 * self.depth), min(WARM_UP, schedule.seconds)
        images = count = 0
        with self.open() as batches:
            start = clock()
            for number, batch in enumerate(batches, 1):
                self.images(batch)
                if number >= skipped and number % self.stride == 0 and clock() - start >= warm:
                    break
            self.sync()
            cpu = processor_seconds()
            start = clock()
            for batch in batches:
                images += self.images(batch)
                count += 1
                if count % self.stride == 0 and clock() - start >= schedule.seconds:
                    break
            self.sync()
            now = clock()
            cpu = processor_seconds() - cpu
        if not images or now <= start:
            raise ShardfeedError(f"{self.name} ended before it gave a batch to measure")
        return Window(images, now - start, cpu)


@dataclass(frozen=True)
class Spread:
    """The middle and the extremes of a figure over the rounds."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        return cls(statistics.median(values), min(values), max(values))


def ratios(base: Sequence[Window], other: Sequence[Window]) -> Spread:
    """How many times `base`'s images/s `other` gives, round by round: neighbours in time are compared."""
    return Spread.of([b.images_per_s / a.images_per_s for a, b in zip(base, other, strict=True)])


def throughput(windows: Sequence[Window]) -> Spread:
    """Images a second over the rounds."""
    return Spread.of([window.images_per_s for window in windows])


def measure(
    contenders: Sequence[Turns], schedule: Schedule, clock: Clock = time.perf_counter
) -> dict[str, list[Window]]:
    """The windows of each contender, by its name, in the order of the rounds."""
    windows: dict[str, list[Window]] = {contender.name: [] for contender in contenders}
    with tqdm(total=(schedule.rounds + 1) * len(contenders), unit="turn", disable=None) as bar:
        for number in range(schedule.rounds + 1):
            for contender in contenders:
                window = contender.turn(schedule, clock)
                if number > 0:
                    windows[contender.name].append(window)
                bar.set_postfix_str(f"{contender.name}: {window.images_per_s:,.0f} images/s")
                bar.update()
    return windows
