"""The files that a run leaves in its output directory.

metrics.jsonl             a line every --log-every steps ("event": "train") and after each validation
epoch_times.csv           a line per epoch
per_class.csv             a line per class: its accuracy in the last validation
total_training_time.csv   one line, written at the end; images_per_s leaves out the first steps, as in the other files
checkpoints/              what an interrupted run goes on from: train/checkpoints/saver.py
imagenet_trained_model.pth  the weights: train/checkpoints/weights.py
config.json               the resolved configuration and the versions of what ran it
curves.png                the curves of metrics.jsonl, drawn at the end: train/curves.py
tensorboard/              the numbers of metrics.jsonl, if the extra [tensorboard] is installed
wandb/                    W&B's own files, with --wandb: train/report/boards.py

Each line of metrics.jsonl has the time when it was written (UTC). A "train" line covers the steps since the "train"
line before it: loss is the mean over their images; lr and gradient_norm are the last step's; images_per_s and
data_wait_percent leave out evaluation and saving; skipped_steps counts, from the beginning of the run, the steps that
changed nothing because a gradient was not finite; gpu_memory_mib is the peak of this rank's tensors.
"""

import contextlib
import csv
import errno
import io
import json
import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, Self

from shards.common.atomic import PART, replacing
from shards.common.errors import ShardfeedError
from shards.common.locks import LockedElsewhere, open_locked
from train.curves import METRICS
from train.report.boards import Board, open_boards
from train.report.clock import ClockReading

EPOCH_TIMES = "epoch_times.csv"
TOTAL_TIME = "total_training_time.csv"
PER_CLASS = "per_class.csv"
CONFIG = "config.json"
# NFSv4 frees the locks of a machine that is gone after 90 seconds; torchrun starts ranks again earlier.
LOCK_PATIENCE_S = 120.0


@dataclass(frozen=True)
class LogPosition:
    """How far a run's files had come when a checkpoint was written: the optimizer step, and the bytes of each file."""

    step: int
    sizes: Mapping[str, int]


@contextlib.contextmanager
def room_in(out: Path) -> Iterator[None]:
    """Turns a full disk, while files are written to `out`, into a ShardfeedError that names it."""
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

    resolved: what config.json holds. position: of a run that goes on, where its checkpoint was written; later lines are
    cut off, because the run writes them again. wandb: a project of W&B that gets the numbers too. log: metrics.jsonl,
    if it is open and locked already. Raises as `open_log` and `open_boards` do.
    """

    def __init__(
        self,
        out: Path | None,
        resolved: Mapping[str, Any],
        position: LogPosition | None = None,
        *,
        wandb: str | None = None,
        log: IO[str] | None = None,
    ) -> None:
        self._out = out
        self._metrics: IO[str] | None = None
        self._boards: list[Board] = []
        if out is None:
            return
        with room_in(out):
            self._open(out, resolved, position, log)
        self._boards = open_boards(out, resolved, None if position is None else position.step + 1, wandb)

    def _open(self, out: Path, resolved: Mapping[str, Any], position: LogPosition | None, log: IO[str] | None) -> None:
        self._metrics = log or open_log(out)
        # Stays open until the end: closing any descriptor of the file ends its lock, by the rules of POSIX.
        # Without a buffer, which would keep lines that are cut off below and show them to `total_time`.
        self._lines = (out / METRICS).open("rb", buffering=0)
        with replacing(out / CONFIG) as file:
            file.write((json.dumps(resolved, indent=1, default=str) + "\n").encode())
        (out / TOTAL_TIME).unlink(missing_ok=True)  # of an earlier run, whose weights and checkpoints were removed
        os.truncate(out / METRICS, _whole_lines(self._lines, 0 if position is None else position.sizes[METRICS]))
        with (out / EPOCH_TIMES).open("a+b") as times:
            times.truncate(_whole_lines(times, 0 if position is None else position.sizes[EPOCH_TIMES]))
        if not (out / EPOCH_TIMES).stat().st_size:
            _write_csv(out / EPOCH_TIMES, [("epoch", "train_seconds", "validation_seconds", "images_per_s")], "w")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for board in self._boards:
            board.close(failed=kind is not None)
        if self._metrics is not None:
            with contextlib.suppress(OSError):  # if the disk was too full for a line, closing fails again
                self._metrics.close()
            self._lines.close()

    def sizes(self) -> dict[str, int]:
        """Bytes written so far to each file that grows; none without a directory."""
        if self._out is None:
            return {}
        return {name: (self._out / name).stat().st_size for name in (METRICS, EPOCH_TIMES)}

    def metrics(self, event: str, epoch: int, step: int, **values: float) -> None:
        """One line of metrics.jsonl, and the same numbers to the boards. `step`: the optimizer steps taken."""
        if self._out is None or self._metrics is None:
            return
        line = {"event": event, "time": datetime.now(UTC).isoformat(timespec="seconds"), "epoch": epoch, "step": step}
        line |= {name: _rounded(value) for name, value in values.items()}
        with room_in(self._out):
            self._metrics.write(json.dumps(line) + "\n")
            self._metrics.flush()
        for board in self._boards:
            board.write(event, epoch, step, values)

    def epoch_time(self, epoch: int, training: ClockReading, validation_seconds: float, images_per_s: float) -> None:
        """One line of epoch_times.csv."""
        if self._out is not None:
            row = (epoch, f"{training.seconds:.3f}", f"{validation_seconds:.3f}", f"{images_per_s:.1f}")
            with room_in(self._out):
                _write_csv(self._out / EPOCH_TIMES, [row], "a")

    def total_time(self, training: ClockReading, wall_seconds: float, images_per_s: float, left_out: int) -> None:
        """Draws curves.png, then writes total_training_time.csv: seconds of training alone, and of the whole run.

        left_out: images of all epochs that were not trained on, because they filled no micro-batch or step. The file
        marks the run as complete, so it comes last: after a kill the same command writes both. A picture that cannot
        be drawn is a line on stderr.
        """
        if self._out is not None:
            from train.curves import draw, parse_lines

            try:
                self._lines.seek(0)
                draw(self._out, parse_lines(self._lines.read().decode(), self._out / METRICS))
            except Exception as error:
                print(f"no curves.png ({type(error).__name__}: {error})", file=sys.stderr)
            row = (f"{training.seconds:.3f}", f"{wall_seconds:.3f}", training.images, left_out, f"{images_per_s:.1f}")
            names = ("train_seconds", "wall_seconds", "images", "images_left_out", "images_per_s")
            part = self._out / (TOTAL_TIME + PART)
            with room_in(self._out):
                _write_csv(part, [names, row], "w")
                part.replace(self._out / TOTAL_TIME)


def write_per_class(
    path: Path, class_names: Sequence[str], images: Sequence[int], top1: Sequence[int], top5: Sequence[int]
) -> None:
    """Writes a line per class, by its label: class, name, images, top1, top5; the last two in percent of its images.

    images: how many images of each class were evaluated. top1, top5: for how many of them the class was the best guess,
    and among the five best. A class without images has no percentages. The file is whole or absent.
    """
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("class", "name", "images", "top1", "top5"))
    for label, (name, seen, first, among) in enumerate(zip(class_names, images, top1, top5, strict=True)):
        percent = [f"{100 * correct / seen:.2f}" if seen else "" for correct in (first, among)]
        rows.writerow((label, name, seen, *percent))
    with replacing(path) as file:
        file.write(text.getvalue().encode())


def _write_csv(path: Path, rows: Iterable[Iterable[object]], mode: Literal["w", "a"]) -> None:
    with path.open(mode, newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def _whole_lines(file: IO[bytes], size: int) -> int:
    """Bytes of the whole lines in a file's first `size`; a power loss may have cut it before that, within a line."""
    file.seek(0)
    return file.read(size).rfind(b"\n") + 1


def _rounded(value: float) -> float | None:
    """Six digits; None for infinity, which JSON lacks and a gradient norm is where the scaler's factor was too high."""
    if isinstance(value, int):
        return value
    return float(f"{value:.6g}") if math.isfinite(value) else None
