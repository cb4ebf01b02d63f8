"""One loader in a fresh process: how long until its first batch, how much memory, how long a batch.

A fresh process each time, so that libraries and memory of an earlier loader do not count.
"""

import itertools
import json
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.measure.machine import memory_mb
from shards.common.errors import ShardfeedError


@dataclass(frozen=True)
class Probed:
    """What one process measured.

    imports_s: loading the libraries; first_batch_s: from opening the data set to its first batch.
    batch_ms: median time between two batches; batch_core_ms: processor time of a batch, over all threads.
    memory_mb: resident after these batches; by_epoch_mb: resident after each epoch that followed.
    """

    imports_s: float
    first_batch_s: float
    batch_ms: float
    batch_core_ms: float
    memory_mb: float
    by_epoch_mb: tuple[float, ...]


def probe(root: Path, batch_size: int, *, seconds: float = 0.0, epochs: int = 0, steps: int | None = None) -> Probed:
    """Runs a loader in a fresh process: batches for `seconds`, then `epochs` epochs of at most `steps` batches."""
    words = [sys.executable, "-m", "benchmarks.stages.probe", str(root), str(batch_size), str(seconds), str(epochs)]
    words += [] if steps is None else [str(steps)]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise ShardfeedError("the measured process failed: its message is above")
    value = json.loads(done.stdout)
    return Probed(**{**value, "by_epoch_mb": tuple(value["by_epoch_mb"])})


def _measure(root: Path, batch_size: int, seconds: float, epochs: int, steps: int | None) -> Probed:
    began = time.perf_counter()
    from shards import Loader, open_dataset

    imported = time.perf_counter()
    [split] = open_dataset(root).values()
    with Loader(split, batch_size=batch_size, train=True) as loader:
        batches = itertools.chain.from_iterable(itertools.repeat(loader))
        next(batches)
        first = time.perf_counter()
        for _ in range(8):  # batches that were ready, and what the first use compiles
            next(batches)
        core, ends = time.process_time(), [time.perf_counter()]
        while ends[-1] - ends[0] < seconds or len(ends) < 3:
            next(batches)
            ends.append(time.perf_counter())
        core = (time.process_time() - core) / (len(ends) - 1)
        between = statistics.median(b - a for a, b in itertools.pairwise(ends))
        memory, by_epoch = memory_mb("now"), []
        for epoch in range(epochs):
            loader.set_epoch(epoch)
            for _ in itertools.islice(loader, steps):
                pass
            by_epoch.append(memory_mb("now"))
    return Probed(imported - began, first - imported, 1e3 * between, 1e3 * core, memory, tuple(by_epoch))


if __name__ == "__main__":
    root, batch_size, seconds, epochs, *steps = sys.argv[1:]
    found = _measure(Path(root), int(batch_size), float(seconds), int(epochs), int(steps[0]) if steps else None)
    print(json.dumps(asdict(found)))
