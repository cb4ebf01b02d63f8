"""Estimates the disk space and the time that a job needs, by converting a sample of its images.

The sample is at most 200 images (fewer of a small source, and no more than take three seconds), spread over the rows
that are still to be converted. The estimate is their mean; its margin comes from their spread. The sample is converted
while as many other processes compute as the job will have, so that its time is that of a core which other programs, and
the other half of a hyper-threaded core, share. The time includes what the workers need to start, and the checksums of
what is written.
"""

import contextlib
import hashlib
import itertools
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from preprocess.job.task import Rejected, ShardJob, Task
from shards.common.errors import ShardfeedError
from shards.common.space import free_bytes, size
from shards.common.terminal import unit_of_time
from shards.format.tar import sample_bytes
from shards.sampling.hashing import integers, permutation

SAMPLES = 200
FEWEST = 8
SHARE = 50  # at most one row in 50, so that a small job is not held up
SECONDS = 3.0  # after this time no further image is sampled
# Seconds to sample at least, images again where there are few: in less the system deals out no fair shares. A job that
# takes less itself is not held up longer than it takes, and not by other processes.
LEAST = 0.3
ERRORS = 2  # standard errors of the mean that `most` lies above the estimate
STREAM = 0x5A4D  # the stream of random numbers that chooses the sample

# A sample's lines in the indices, beside what it takes in the tar.
INDEX_BYTES = 150
# A worker loads the libraries that this process has loaded, so it needs as much processor time to start; but opening a
# large source, which only this process does, takes longer than any start.
LONGEST_START = 5.0
END = 0.5  # seconds of the job's end: indices, manifest, and workers that leave
# The ends of the range that is told, times the estimate: other programs end or begin meanwhile, and disks are slow.
FASTER, SLOWER = 0.8, 1.6
FEW = 10  # seconds that are "a few"


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
        """Seconds that shards of so many images will take as the machine is now. A shard is the work of one worker."""
        workers = min(workers, len(shards))
        if not workers:
            return 0.0
        if workers == 1:  # this very process
            return sum(shards) * self.seconds + END
        busy = [0] * workers
        for images in shards:
            busy[busy.index(min(busy))] += images
        return self.start + max(busy) * self.seconds + END


@dataclass(frozen=True)
class Forecast:
    """What a job is expected to take. `needed`: of all that is unfinished; `images`, `shards`: those of its slice.

    `seconds`: as the machine is now.
    """

    needed: Estimate
    images: int
    shards: int
    workers: int
    seconds: float

    def figures(self) -> dict[str, int | float]:
        """For programs; the space is that of all slices, and its unit bytes."""
        least, most = _range(self.seconds)
        return {
            "rows": self.images,
            "shards": self.shards,
            "bytes": self.needed.bytes,
            "bytes_at_most": self.needed.most,
            "workers": self.workers,
            "seconds_at_least": round(least, 1),
            "seconds_at_most": round(most, 1),
        }


def estimate(job: ShardJob, tasks: Sequence[Task], workers: int = 1) -> Estimate:
    """Converts a sample of the rows of the shards `tasks`, and drops it; `workers`: processes that the job will have.

    Raises as ShardJob.convert_row does.
    """
    rows = {split: _rows(job, split, tasks) for split in job.plan.splits}
    total = sum(map(len, rows.values()))
    chosen = sample(rows, min(SAMPLES, max(FEWEST, total // SHARE)), job.plan.settings.seed)
    if not chosen:
        return Estimate(0, 0, 0, 0.0)
    job.convert_row(*chosen[0])  # loads and compiles what the others need
    start = min(time.process_time(), LONGEST_START)
    began = time.perf_counter()
    job.convert_row(*chosen[0])
    least = min(LEAST, total * (time.perf_counter() - began))
    sizes: list[int] = []
    with _computing(workers - 1 if least == LEAST else 0):
        began, began_cpu = time.perf_counter(), time.process_time()
        for turn in itertools.count():
            made = job.convert_row(*chosen[turn % len(chosen)])
            if isinstance(made, Rejected):
                sizes.append(0)
            else:
                hashlib.sha256(made.sample.data).digest()  # most of what writing takes of a core
                sizes.append(stored_bytes(len(made.sample.data)))
            spent = time.perf_counter() - began
            if spent > SECONDS or (turn + 1 >= len(chosen) and spent >= least):
                break
        cpu = time.process_time() - began_cpu
    seconds = spent / len(sizes)
    if least == LEAST:  # longer where other programs, or the disk, hold this one up
        start *= max(1.0, spent / max(cpu, 1e-3))
    del sizes[len(chosen) :]  # those that were converted again, for the clock
    mean, error = float(np.mean(sizes)), float(np.std(sizes)) / math.sqrt(len(sizes))
    return Estimate(
        images=total,
        bytes=round(total * mean),
        most=round(total * (mean + ERRORS * error)),
        seconds=seconds,
        start=start,
    )


@contextlib.contextmanager
def _computing(processes: int) -> Iterator[None]:
    """In the block so many other processes compute, as the other workers of the job will."""
    # They end with this process, however it ends, and a signal to the whole group ends them in silence.
    code = f"import os\nwhile os.getppid() == {os.getpid()}: pass"
    command, nowhere = [sys.executable, "-I", "-S", "-c", code], subprocess.DEVNULL
    started: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(processes):
            started.append(subprocess.Popen(command, stdin=nowhere, stdout=nowhere, stderr=nowhere))
        yield
    finally:
        for process in started:
            process.kill()
        for process in started:
            process.wait()


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


def time_in_words(seconds: float) -> str:
    """What is said of an estimate of so many seconds, a range: 20 to 40 s, 12 to 24 min, 3.5 to 7.0 h."""
    least, most = _range(seconds)
    if most <= FEW:
        return "a few seconds"
    unit, length, digits = unit_of_time(most)
    return f"{least / length:.{digits}f} to {most / length:.{digits}f} {unit}"


def _range(seconds: float) -> tuple[float, float]:
    return FASTER * seconds, SLOWER * seconds


def _rows(job: ShardJob, split: str, tasks: Sequence[Task]) -> npt.NDArray[np.int64]:
    parts = [job.plan.rows(*task) for task in tasks if task[0] == split]
    return np.sort(np.concatenate([np.empty(0, np.int64), *parts]))
