"""What a run measures and leaves behind: a clock that knows pauses, and the files of the output directory.

metrics.jsonl             a line every `log_every` steps ("event": "train") and after each validation
epoch_times.csv           a line per epoch
total_training_time.csv   one line, written at the end
checkpoints/              what an interrupted run goes on from: train/checkpoints/saver.py
config.json               the resolved configuration and the versions of what ran it
curves.png                the curves of metrics.jsonl, drawn at the end: train/curves.py
tensorboard/              the numbers of metrics.jsonl, if the extra [tensorboard] is installed
wandb/                    what W&B keeps of them here, if a project there was asked for: train/report/boards.py

A line of "train" is about the steps since the one before it: loss is their mean over images; lr and gradient_norm are
those of the last step; images_per_s and data_wait_percent leave out evaluation and saving; skipped_steps counts, since
the beginning, those that changed nothing because a gradient was not finite; gpu_memory_mib is the most that this rank's
tensors have held.
"""

import contextlib
import csv
import errno
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, Self, TypeVar

from shards.common.atomic import PART, replacing
from shards.common.errors import ShardfeedError
from shards.common.locks import LockedElsewhere, open_locked
from train.report.boards import Board, open_boards

METRICS = "metrics.jsonl"
EPOCH_TIMES = "epoch_times.csv"
TOTAL_TIME = "total_training_time.csv"
CONFIG = "config.json"
# NFSv4 frees the locks of a machine that is gone after 90 seconds; torchrun starts ranks again earlier.
LOCK_PATIENCE_S = 120.0

T = TypeVar("T")


@dataclass(frozen=True)
class Reading:
    """What a clock shows: seconds run, how many of them went by waiting for data, and images done, on all ranks."""

    seconds: float = 0.0
    waited: float = 0.0
    images: int = 0

    def __sub__(self, earlier: "Reading") -> "Reading":
        return Reading(self.seconds - earlier.seconds, self.waited - earlier.waited, self.images - earlier.images)

    @property
    def images_per_s(self) -> float:
        """Images per second; 0 before any time has passed."""
        return self.images / self.seconds if self.seconds > 0 else 0.0

    @property
    def wait_percent(self) -> float:
        """The share of the time in which the loop waited for data, in percent."""
        return 100.0 * self.waited / self.seconds if self.seconds > 0 else 0.0


class Clock:
    """Counts training time alone: it runs between `start` and `stop`, and stands still during evaluation and saving.

    Throughput is read as the difference of two readings, so a warm-up is left out by reading after it. Work on
    a GPU is counted when it has finished: read a result to the host before reading the clock.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self._seconds = 0.0
        self._waited = 0.0
        self._images = 0
        self._since: float | None = None

    def start(self) -> None:
        """Lets the clock run."""
        self._since = self._now()

    def stop(self) -> None:
        """Lets the clock stand still."""
        self._seconds = self.read().seconds
        self._since = None

    def set(self, reading: Reading) -> None:
        """Lets the clock, which stands still, show what another one showed."""
        self._seconds, self._waited, self._images = reading.seconds, reading.waited, reading.images

    def timed(self, batches: Iterable[T]) -> Iterator[T]:
        """The batches; the time that each takes to come counts as waiting for data."""
        iterator = iter(batches)
        while True:
            asked = self._now()
            batch = next(iterator, None)
            self._waited += self._now() - asked
            if batch is None:
                return
            yield batch

    def count(self, images: int) -> None:
        """Adds images that have been trained on."""
        self._images += images

    def read(self) -> Reading:
        """What the clock shows now."""
        running = 0.0 if self._since is None else self._now() - self._since
        return Reading(self._seconds + running, self._waited, self._images)


@dataclass(frozen=True)
class Kept:
    """What a checkpoint says of a run's files: the optimizer steps until then, and the bytes of each file."""

    step: int
    sizes: Mapping[str, int]


@contextlib.contextmanager
def room_in(out: Path) -> Iterator[None]:
    """Turns a full disk while a run writes into `out` into a ShardfeedError."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ShardfeedError(
            f"there is no room left for the files in {out} ({error.strerror}): make some, then give the same command "
            "again to go on from the last checkpoint"
        ) from error


def open_log(out: Path) -> IO[str]:
    """Opens the run's metrics.jsonl to append to, locked until it is closed: one run at a time writes into `out`.

    Ranks that torchrun has started again wait for the lock. Raises ShardfeedError where another process holds it.
    """
    restarted = os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0") != "0"
    try:
        return open_locked(out / METRICS, LOCK_PATIENCE_S if restarted else 0.0)
    except LockedElsewhere:
        raise ShardfeedError(
            f"another run is writing into {out}: wait for it, stop it, or choose another --out"
        ) from None


class Recorder:
    """Writes a run's files into `out`, line by line, so that a killed run keeps what it measured; nothing if None.

    A run that goes on gives what its checkpoint says: lines written after it are cut off, because they come again.
    wandb: a project of W&B that gets the numbers too. log: the file of the numbers, if it is open and locked already.
    Raises as `open_log` and `open_boards` do.
    """

    def __init__(
        self,
        out: Path | None,
        resolved: Mapping[str, Any],
        kept: Kept | None = None,
        *,
        wandb: str | None = None,
        log: IO[str] | None = None,
    ) -> None:
        self._out = out
        self._metrics: IO[str] | None = None
        self._boards: list[Board] = []
        if out is None:
            return
        self._metrics = log or open_log(out)
        with replacing(out / CONFIG) as file:
            file.write((json.dumps(resolved, indent=1, default=str) + "\n").encode())
        (out / TOTAL_TIME).unlink(missing_ok=True)  # of a run whose weights and checkpoints were removed
        _cut(self._metrics, 0 if kept is None else kept.sizes[METRICS])
        with (out / EPOCH_TIMES).open("a") as times:
            _cut(times, 0 if kept is None else kept.sizes[EPOCH_TIMES])
        if not (out / EPOCH_TIMES).stat().st_size:
            _write_csv(out / EPOCH_TIMES, [("epoch", "train_seconds", "validation_seconds", "images_per_s")], "w")
        self._boards = open_boards(out, resolved, None if kept is None else kept.step + 1, wandb)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for board in self._boards:
            board.close(failed=kind is not None)
        if self._metrics is not None:
            with contextlib.suppress(OSError):  # a line that found no room finds none now
                self._metrics.close()

    def sizes(self) -> dict[str, int]:
        """Bytes written so far to each file that grows; none without a directory."""
        if self._out is None:
            return {}
        return {name: (self._out / name).stat().st_size for name in (METRICS, EPOCH_TIMES)}

    def metrics(self, event: str, epoch: int, step: int, **values: float) -> None:
        """One line of metrics.jsonl, and the same numbers to the boards. `epoch` and `step` count finished ones."""
        if self._metrics is None:
            return
        rounded = {name: _rounded(value) for name, value in values.items()}
        self._metrics.write(json.dumps({"event": event, "epoch": epoch, "step": step, **rounded}) + "\n")
        self._metrics.flush()
        for board in self._boards:
            board.write(event, epoch, step, values)

    def epoch_time(self, epoch: int, training: Reading, validation_seconds: float, images_per_s: float) -> None:
        """One line of epoch_times.csv."""
        if self._out is not None:
            row = (epoch, f"{training.seconds:.3f}", f"{validation_seconds:.3f}", f"{images_per_s:.1f}")
            _write_csv(self._out / EPOCH_TIMES, [row], "a")

    def total_time(self, training: Reading, wall_seconds: float, images_per_s: float) -> None:
        """Writes total_training_time.csv: training alone, and everything between the first and the last moment.

        Then draws curves.png.
        """
        if self._out is not None:
            row = (f"{training.seconds:.3f}", f"{wall_seconds:.3f}", training.images, f"{images_per_s:.1f}")
            part = self._out / (TOTAL_TIME + PART)
            _write_csv(part, [("train_seconds", "wall_seconds", "images", "images_per_s"), row], "w")
            part.replace(self._out / TOTAL_TIME)  # it marks the run as complete, so it must be there as a whole
            from train.curves import draw  # loads matplotlib

            draw(self._out)


def _write_csv(path: Path, rows: Iterable[Iterable[object]], mode: Literal["w", "a"]) -> None:
    with path.open(mode, newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def _cut(file: IO[str], size: int) -> None:
    """Shortens a file to `size` bytes; one that is shorter already (after a power loss) stays so."""
    file.truncate(min(size, os.fstat(file.fileno()).st_size))


def _rounded(value: float) -> float | None:
    """As JSON holds it, which knows no infinity: a gradient norm is one where the scaler's factor was too high."""
    if isinstance(value, int):
        return value
    return float(f"{value:.6g}") if math.isfinite(value) else None
