"""Estimates the disk space and the time that a job needs, by converting a sample of its images.

The sample is at most 200 images (fewer of a small source, and no more than take three seconds), spread over the rows
that are still to be converted. The estimate is their mean; its margin comes from their spread. The time includes what
the workers need to start, and the checksums of what is written.
"""

import hashlib
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
from shards.format.tar import sample_bytes
from shards.sampling.hashing import integers, permutation

SAMPLES = 200
FEWEST = 8
SHARE = 50  # at most one row in 50, so that a small job is not held up
SECONDS = 3.0  # after this time no further image is sampled
ERRORS = 2  # standard errors of the mean that `most` lies above the estimate
STREAM = 0x5A4D  # the stream of random numbers that chooses the sample

# A sample's lines in the indices, beside what it takes in the tar.
INDEX_BYTES = 150
# A worker loads the libraries that this process has loaded, so it needs as much processor time to start; but opening a
# large source, which only this process does, takes longer than any start.
LONGEST_START = 5.0


@dataclass(frozen=True)
class Estimate:
    """`images` to be made, the `bytes` they will take, `most`: with a margin.

    `seconds`: for each image, on one core; `start`: seconds until a worker process is at work.
    """

    images: int
    bytes: int
    most: int
    seconds: float
    start: float = 0.0

    def duration(self, shards: Sequence[int], workers: int) -> float:
        """Seconds that shards of so many images will take. A shard is the work of one worker."""
        workers = min(workers, len(shards))
        if workers <= 1:  # this very process
            return sum(shards) * self.seconds
        busy = [0] * workers
        for images in shards:
            busy[busy.index(min(busy))] += images
        return self.start + max(busy) * self.seconds


def estimate(job: ShardJob, tasks: Sequence[Task]) -> Estimate:
    """Converts a sample of the rows of the shards `tasks`, and drops it. Raises as ShardJob.convert_row does."""
    rows = {split: _rows(job, split, tasks) for split in job.plan.splits}
    total = sum(map(len, rows.values()))
    chosen = sample(rows, min(SAMPLES, max(FEWEST, total // SHARE)), job.plan.settings.seed)
    if not chosen:
        return Estimate(0, 0, 0, 0.0)
    job.convert_row(*chosen[0])  # loads and compiles what the others need
    start = min(time.process_time(), LONGEST_START)
    sizes: list[int] = []
    began, began_cpu = time.perf_counter(), time.process_time()
    for split, row in chosen:
        made = job.convert_row(split, row)
        if isinstance(made, Rejected):
            sizes.append(0)
        else:
            hashlib.sha256(made.sample.data).digest()  # most of what writing takes of a core
            sizes.append(stored_bytes(len(made.sample.data)))
        if time.perf_counter() - began > SECONDS:
            break
    spent, cpu = time.perf_counter() - began, time.process_time() - began_cpu
    mean, error = float(np.mean(sizes)), float(np.std(sizes)) / math.sqrt(len(sizes))
    return Estimate(
        images=total,
        bytes=round(total * mean),
        most=round(total * (mean + ERRORS * error)),
        seconds=spent / len(sizes),
        start=start * max(1.0, spent / max(cpu, 1e-3)),  # longer where other programs, or the disk, hold this one up
    )


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
    return sample_bytes(size) + INDEX_BYTES


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
