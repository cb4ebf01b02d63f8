"""One loader in a fresh process: how long until its first batch, how fast it is, and how much memory it takes.

A fresh process each time, so that libraries and memory of an earlier loader do not count.
"""

import itertools
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.measure.machine import memory_mb
from shards.common.errors import ShardfeedError


@dataclass(frozen=True)
class Probe:
    """What a process does: a loader with `threads` gives batches for `seconds`, then goes through `epochs` epochs."""

    data: str
    batch_size: int
    threads: int | None = None
    seconds: float = 0.0
    epochs: int = 0


@dataclass(frozen=True)
class Probed:
    """What one process measured.

    imports_s: loading the libraries. first_batch_s: from opening the data set to its first batch.
    images_per_s: of the batches that followed, for `seconds`. memory_mb: resident after them.
    by_epoch_mb: resident after each epoch.
    """

    imports_s: float
    first_batch_s: float
    images_per_s: float
    memory_mb: float
    by_epoch_mb: tuple[float, ...]


def run(probe: Probe) -> Probed:
    """Runs it. Raises ShardfeedError if the process fails; its stderr is this process's."""
    words = [sys.executable, "-m", "benchmarks.stages.probe", json.dumps(asdict(probe))]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise ShardfeedError("the measured process failed: its message is above")
    value = json.loads(done.stdout)
    return Probed(**{**value, "by_epoch_mb": tuple(value["by_epoch_mb"])})


def measure(probe: Probe) -> Probed:
    """Measures in this process, which must not have loaded `shards` before."""
    began = time.perf_counter()
    from shards import Loader, open_dataset

    imported = time.perf_counter()
    [split] = open_dataset(Path(probe.data)).values()
    with Loader(split, batch_size=probe.batch_size, train=True, threads=probe.threads) as loader:
        batches = itertools.chain.from_iterable(itertools.repeat(loader))
        next(batches)
        first = time.perf_counter()
        for _ in range(8):  # batches that were ready, and what the first use compiles
            next(batches)
        start, images = time.perf_counter(), 0
        while (now := time.perf_counter()) - start < probe.seconds or not images:
            images += len(next(batches)[1])
        memory, by_epoch = memory_mb("now"), []
        for _ in range(probe.epochs):
            for _ in loader:
                pass
            by_epoch.append(memory_mb("now"))
    return Probed(imported - began, first - imported, images / (now - start), memory, tuple(by_epoch))


if __name__ == "__main__":
    print(json.dumps(asdict(measure(Probe(**json.loads(sys.argv[1]))))))
