"""The training clock: seconds of training alone, how many of them the loop waited for data, and images."""

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class ClockReading:
    """What the clock shows: seconds, the part of them spent waiting for data, and images trained on over all ranks."""

    seconds: float = 0.0
    waited: float = 0.0
    images: int = 0

    def __sub__(self, earlier: "ClockReading") -> "ClockReading":
        return ClockReading(self.seconds - earlier.seconds, self.waited - earlier.waited, self.images - earlier.images)

    @property
    def images_per_s(self) -> float:
        """Images per second; 0 before any time has passed."""
        return self.images / self.seconds if self.seconds > 0 else 0.0

    @property
    def wait_percent(self) -> float:
        """The share of the time in which the loop waited for data, in percent.

        The host's wait for one batch and the GPU's for the one before may overlap, and are both counted.
        """
        return min(100.0, 100.0 * self.waited / self.seconds) if self.seconds > 0 else 0.0


class Clock:
    """Counts training time alone: it runs between `start` and `stop`, so it pauses for evaluation and saving.

    Work on a GPU counts once it has finished: read a result to the host before reading the clock.

    epoch_start: the reading at the start of the epoch.
    last_log: the reading at the last line of the log.
    warmed_up: the reading when the warm-up was over, or None before. Throughput leaves the warm-up out.
    began: when the run began, in the time of `now`. It counts the wall time, with evaluation and saving.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter, began: float | None = None) -> None:
        self._now = now
        self._stopped_at = ClockReading()
        self._waited, self._images = 0.0, 0
        self._since: float | None = None
        self.epoch_start = self.last_log = ClockReading()
        self.warmed_up: ClockReading | None = None
        self.began = now() if began is None else began

    def start(self) -> None:
        """Lets the clock run."""
        self._since = self._now()

    def stop(self) -> None:
        """Pauses the clock."""
        self._stopped_at = self.read()
        self._since = None

    def timed(self, batches: Iterable[T]) -> Iterator[T]:
        """The batches; the time until each one comes counts as waiting for data."""
        iterator = iter(batches)
        while True:
            asked = self._now()
            batch = next(iterator, None)
            self._waited += self._now() - asked
            if batch is None:
                return
            yield batch

    def add_wait(self, seconds: float) -> None:
        """Adds a wait for data that the host has not seen: the GPU's, which gets batches that are not decoded yet."""
        self._waited += seconds

    def count(self, images: int) -> None:
        """Adds images that have been trained on."""
        self._images += images

    def read(self) -> ClockReading:
        """What the clock shows now."""
        running = 0.0 if self._since is None else self._now() - self._since
        return ClockReading(self._stopped_at.seconds + running, self._waited, self._images)

    def enter_epoch(self) -> None:
        """Marks the start of an epoch."""
        self.epoch_start = self.last_log = self.read()

    def lap(self) -> ClockReading:
        """What has passed since the last call, or since the start of the epoch."""
        reading = self.read()
        lap, self.last_log = reading - self.last_log, reading
        return lap

    def epoch_so_far(self) -> ClockReading:
        """What has passed since the start of the epoch."""
        return self.read() - self.epoch_start

    def steady_epoch(self) -> ClockReading:
        """What has passed since the start of the epoch, without the warm-up."""
        warmed_up = self.warmed_up or self.epoch_start
        return self.read() - max(self.epoch_start, warmed_up, key=lambda reading: reading.seconds)

    def steady(self) -> ClockReading:
        """What has passed since the warm-up."""
        return self.read() - (self.warmed_up or ClockReading())

    def wall_seconds(self) -> float:
        """Seconds since the run began."""
        return self._now() - self.began

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs, in numbers."""
        readings = {
            "now": self.read(), "epoch_start": self.epoch_start, "last_log": self.last_log, "warmed_up": self.warmed_up,
        }  # fmt: skip
        plain = {name: None if each is None else dataclasses.astuple(each) for name, each in readings.items()}
        return {**plain, "wall_seconds": self.wall_seconds()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Lets the clock, which is stopped, go on from where `state_dict` was taken."""
        self._stopped_at = ClockReading(*state["now"])
        self._waited, self._images = self._stopped_at.waited, self._stopped_at.images
        self.epoch_start, self.last_log = ClockReading(*state["epoch_start"]), ClockReading(*state["last_log"])
        self.warmed_up = None if state["warmed_up"] is None else ClockReading(*state["warmed_up"])
        self.began -= state["wall_seconds"]
