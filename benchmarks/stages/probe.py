"""One loader in a fresh process: how long until its first batch, how fast it is, and how much memory it takes.

A fresh process each time, so that libraries and memory of an earlier loader do not count.
"""

import itertools
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.measure.machine import memory_mb

T = TypeVar("T")


def apart(function: Callable[..., T], *arguments: Any) -> T:
    """What the function returns, or raises, in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        future = process.submit(function, *arguments)
        try:
            return future.result()
        except BaseException:
            for child in multiprocessing.active_children():
                child.terminate()  # the executor would wait until it is done
            raise


def start(data: Path, batch_size: int, seconds: float, threads: int | None = None) -> dict[str, tuple[float, str]]:
    """Figures of a loader that gives batches for `seconds`, each with its unit. Nothing may be loaded before."""
    began = time.perf_counter()
    from shards import Loader, open_dataset

    imported = time.perf_counter()
    [split] = open_dataset(data).values()
    with Loader(split, batch_size=batch_size, train=True, threads=threads) as loader:
        batches = itertools.chain.from_iterable(itertools.repeat(loader))
        next(batches)
        first = time.perf_counter()
        for _ in range(8):  # batches that were ready, and what the first use compiles
            next(batches)
        start, count = time.perf_counter(), 0
        while (now := time.perf_counter()) - start < seconds or not count:
            next(batches)
            count += 1
        return {
            "loading libraries": (imported - began, "s"),
            "start to first batch": (first - imported, "s"),
            "time a batch": (1e3 * (now - start) / count, "ms"),
            "speed": (count * batch_size / (now - start), "images/s"),
            "resident memory": (memory_mb("now"), "MB"),
        }


def memory(data: Path, batch_size: int, epochs: int) -> list[float]:
    """Resident memory in MB after each epoch of a loader."""
    from shards import Loader, open_dataset

    [split] = open_dataset(data).values()
    with Loader(split, batch_size=batch_size, train=True) as loader:
        by_epoch = []
        for _ in range(epochs):
            for _ in loader:
                pass
            by_epoch.append(memory_mb("now"))
        return by_epoch
