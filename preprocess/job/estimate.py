"""What a job will need, from a sample of its images: bytes on disk, and time.

At most 200 images (fewer of a small source, and no more than a few seconds' worth) are read and converted, spread
over the rows that are still to be done. Their mean gives the estimate, their spread how far it may be off.
"""

import math
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from preprocess.job.task import Job, Rejected, Task
from shards.common.errors import ShardfeedError
from shards.format.layout import BLOCK
from shards.sampling.hashing import integers, permutation

SAMPLES = 200
FEWEST = 8
SHARE = 50  # one row in so many, so that a small job is not held up
SECONDS = 3.0  # after which the sample is as large as it gets
ERRORS = 2  # standard errors of the mean on top of the estimate, for what is asked of the disk
STREAM = 0x5A4D  # of random numbers

# Beside its image each sample costs two headers and one block for its label in the tar, and a line in each index.
SAMPLE_BYTES = 3 * BLOCK + 150


@dataclass(frozen=True)
class Estimate:
    """`images`: still to be made; `bytes`: what they will take, `most`: with a margin; `seconds`: an image and core."""

    images: int
    bytes: int
    most: int
    seconds: float

    def duration(self, images: int, workers: int) -> float:
        """Seconds that so many images will take."""
        return images * self.seconds / workers


def estimate(job: Job, tasks: Sequence[Task]) -> Estimate:
    """Converts a sample of the rows of the shards `tasks` and throws it away. Raises as Job.convert_row does."""
    rows = {split: _rows(job, split, tasks) for split in job.plan.splits}
    total = sum(map(len, rows.values()))
    chosen = sample(rows, min(SAMPLES, max(FEWEST, total // SHARE)), job.plan.settings.seed)
    sizes: list[int] = []
    seconds: list[float] = []
    started = time.monotonic()
    for split, row in chosen:
        before = time.perf_counter()
        made = job.convert_row(split, row)
        seconds.append(time.perf_counter() - before)
        sizes.append(0 if isinstance(made, Rejected) else stored_bytes(len(made[0].data)))
        if time.monotonic() - started > SECONDS:
            break
    # The first image pays for what is loaded and set up once.
    speed = float(np.mean(seconds[1:] or seconds or [0.0]))
    mean = float(np.mean(sizes or [0]))
    error = float(np.std(sizes or [0])) / math.sqrt(max(1, len(sizes)))
    return Estimate(total, round(total * mean), round(total * (mean + ERRORS * error)), speed)


def sample(rows: Mapping[str, npt.NDArray[np.int64]], count: int, seed: int) -> list[tuple[str, int]]:
    """At most `count` different (split, row) of all `rows`, evenly spread over them, in a random order.

    A pure function; any beginning of the result is a sample too.
    """
    total = sum(map(len, rows.values()))
    count = min(count, total)
    # One from each of `count` stretches that differ by at most one row.
    bounds = np.arange(count + 1) * total // max(1, count)
    places = bounds[:-1] + integers(np.arange(count), np.diff(bounds), seed, STREAM)
    ends = np.cumsum([len(part) for part in rows.values()])
    names = list(rows)
    chosen = []
    for place in places[permutation(count, seed, STREAM)].tolist():
        which = int(np.searchsorted(ends, place, side="right"))
        start = int(ends[which - 1]) if which else 0
        chosen.append((names[which], int(rows[names[which]][place - start])))
    return chosen


def stored_bytes(size: int) -> int:
    """Bytes that an image file of `size` bytes takes in a shard and its indices."""
    return -(-size // BLOCK) * BLOCK + SAMPLE_BYTES


def free_bytes(out: Path) -> tuple[int, Path]:
    """Bytes free for this user on the file system of a directory that need not exist yet, and what of it exists."""
    place = out.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free, place


def check_space(out: Path, needed: Estimate) -> None:
    """Raises ShardfeedError where what is still to be made will not fit."""
    free, place = free_bytes(out)
    if needed.most > free:
        raise ShardfeedError(
            f"{needed.images:,} images need about {size(needed.bytes)} (a sample says; {size(needed.most)} at most), "
            f"and {size(free)} are free in {place}: free some space, write elsewhere, or start all the same "
            "with --force"
        )


def size(count: float) -> str:
    """A number of bytes for people: 31.4 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def length(seconds: float) -> str:
    """A time for people: 45 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def _rows(job: Job, split: str, tasks: Sequence[Task]) -> npt.NDArray[np.int64]:
    parts = [job.plan.rows(*task) for task in tasks if task[0] == split]
    return np.sort(np.concatenate([np.empty(0, np.int64), *parts]))
