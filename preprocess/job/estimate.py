"""Estimates the disk space and the time that a job needs, by converting a sample of its images.

The sample is at most 200 images (fewer of a small source, and no more than take three seconds), spread over the rows
that are still to be converted. The estimate is their mean; its margin comes from their spread.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from preprocess.job.task import Rejected, ShardJob, Task
from shards.common.errors import ShardfeedError
from shards.common.space import free_bytes, size
from shards.format.layout import BLOCK
from shards.sampling.hashing import integers, permutation

SAMPLES = 200
FEWEST = 8
SHARE = 50  # at most one row in 50, so that a small job is not held up
SECONDS = 3.0  # after this time no further image is sampled
ERRORS = 2  # standard errors of the mean that `most` lies above the estimate
STREAM = 0x5A4D  # the stream of random numbers that chooses the sample

# Beside its image each sample takes two headers and a block for its label in the tar, and a line in each index.
SAMPLE_BYTES = 3 * BLOCK + 150


@dataclass(frozen=True)
class Estimate:
    """`images` to be made, the `bytes` they will take, `most`: with a margin, `seconds` for each image on one core."""

    images: int
    bytes: int
    most: int
    seconds: float

    def duration(self, images: int, workers: int) -> float:
        """Seconds that `images` images will take."""
        return images * self.seconds / workers


def estimate(job: ShardJob, tasks: Sequence[Task]) -> Estimate:
    """Converts a sample of the rows of the shards `tasks`, and drops it. Raises as ShardJob.convert_row does."""
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
    # The first image also pays for imports and compiling.
    speed = float(np.mean(seconds[1:] or seconds or [0.0]))
    mean = float(np.mean(sizes or [0]))
    error = float(np.std(sizes or [0])) / math.sqrt(max(1, len(sizes)))
    return Estimate(total, round(total * mean), round(total * (mean + ERRORS * error)), speed)


def sample(rows: Mapping[str, npt.NDArray[np.int64]], count: int, seed: int) -> list[tuple[str, int]]:
    """At most `count` different (split, row) of all `rows`, evenly spread over them, in a random order.

    A pure function; any first part of the result is a sample too.
    """
    total = sum(map(len, rows.values()))
    count = min(count, total)
    # One row from each of `count` stretches, whose lengths differ by at most one.
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


def check_space(out: Path, needed: Estimate) -> None:
    """Raises ShardfeedError where the disk has too little room for the estimate."""
    free, place = free_bytes(out)
    if needed.most > free:
        raise ShardfeedError(
            f"{needed.images:,} images need about {size(needed.bytes)} (estimated from a sample; {size(needed.most)} "
            f"at most), and {size(free)} are free in {place}: free some space, give another directory, or skip this "
            "check with --force"
        )


def length(seconds: float) -> str:
    """A time for people: 45 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def _rows(job: ShardJob, split: str, tasks: Sequence[Task]) -> npt.NDArray[np.int64]:
    parts = [job.plan.rows(*task) for task in tasks if task[0] == split]
    return np.sort(np.concatenate([np.empty(0, np.int64), *parts]))
