"""One loader in a process of its own: how long until its first batch, how much memory, how long a batch.

A fresh process each time, so that nothing which another one loaded or left in memory counts.
"""

import itertools
import json
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from shards.common.errors import ShardfeedError


@dataclass(frozen=True)
class Start:
    """imports_s: loading the libraries; first_batch_s: then, from opening the data set to its first batch.

    memory_mb: resident after `seconds` of batches; batch_ms: median time between two batches; batch_core_ms:
    processor time of a batch, over all threads.
    """

    imports_s: float
    first_batch_s: float
    memory_mb: float
    batch_ms: float
    batch_core_ms: float


@dataclass(frozen=True)
class Probe:
    """What a process does. threads: decoding threads; None: the loader's own default."""

    root: Path
    batch_size: int
    threads: int | None
    seconds: float = 2.0
    epochs: int = 0
    """For `memory`: epochs to run."""
    steps: int | None = None
    """For `memory`: batches of an epoch, before the jump to the next one; None: whole epochs."""


def start(probe: Probe) -> Start:
    """Runs `probe` in a fresh process until its first batch, and on for `probe.seconds`."""
    return Start(*_in_process(probe))


def memory(probe: Probe) -> list[float]:
    """Runs `probe.epochs` epochs in a fresh process; the resident memory after each, in MB."""
    return _in_process(probe)


def _in_process(probe: Probe) -> list[float]:
    words = [sys.executable, "-m", "benchmarks.ladder.probe", json.dumps({**asdict(probe), "root": str(probe.root)})]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise ShardfeedError("the measured process failed: its message is above")
    answer: list[float] = json.loads(done.stdout)
    return answer


def main(argument: str) -> None:
    """Runs the probe that JSON describes and prints its figures as JSON."""
    given = json.loads(argument)
    probe = Probe(**{**given, "root": Path(given["root"])})
    print(json.dumps(_memory(probe) if probe.epochs else _start(probe)))


def _start(probe: Probe) -> list[float]:
    began = time.perf_counter()
    from shards import Loader, open_dataset

    imported = time.perf_counter()
    [split] = open_dataset(probe.root).values()
    with Loader(split, batch_size=probe.batch_size, train=True, threads=probe.threads) as loader:
        batches = itertools.chain.from_iterable(itertools.repeat(loader))
        next(batches)
        first = time.perf_counter()
        for _ in range(8):  # those that were ready, and what the first uses compile
            next(batches)
        core, ends = time.process_time(), [time.perf_counter()]
        while ends[-1] - ends[0] < probe.seconds or len(ends) < 3:
            next(batches)
            ends.append(time.perf_counter())
        core = (time.process_time() - core) / (len(ends) - 1)
        between = statistics.median(b - a for a, b in itertools.pairwise(ends))
        return [imported - began, first - imported, resident_mb(), 1e3 * between, 1e3 * core]


def _memory(probe: Probe) -> list[float]:
    from shards import Loader, open_dataset

    [split] = open_dataset(probe.root).values()
    after = []
    with Loader(split, batch_size=probe.batch_size, train=True, threads=probe.threads) as loader:
        for epoch in range(probe.epochs):
            loader.set_epoch(epoch)
            for _ in itertools.islice(loader, probe.steps):
                pass
            after.append(resident_mb())
    return after


def resident_mb() -> float:
    """Resident memory of this process in MB (10^6 bytes), pages of mapped files included."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise ShardfeedError("this system does not say how much memory a process uses")


if __name__ == "__main__":
    main(sys.argv[1])
