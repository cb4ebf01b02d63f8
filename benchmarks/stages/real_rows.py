"""As many real rows as ImageNet has: made, converted, verified and read, each with its time and memory.

The images are 32 pixels large and few, over and over: every step costs what a row costs and not what pixels cost.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from benchmarks.measure.machine import memory_mb
from benchmarks.processes.command import run_command
from benchmarks.stages.probe import apart

Figures = dict[str, tuple[float, str]]

SIDE, IMAGES, CLASSES = 32, 1000, 1000
ROWS_A_GROUP, ROWS_A_SHARD = 10_000, 1000
BATCH = 256
# Seconds between two looks at the memory of a command's processes.
LOOK = 0.1


def steps(rows: int, work: Path) -> Iterator[tuple[str, Callable[[], Figures]]]:
    """The steps, in order, each with what runs it and returns its figures."""
    source, out = work / "source", work / "out"
    convert = ("preprocess", str(source), str(out), "--short-side", str(SIDE), "--shard-size", str(ROWS_A_SHARD))
    yield "rows made", lambda: apart(make_rows, source, rows)
    yield "conversion", lambda: _timed(rows, *convert)
    yield "verify", lambda: _timed(rows, "shards", "verify", str(out))
    yield "whole epoch", lambda: apart(whole_epoch, out)
    yield "jump into its middle", lambda: apart(jump, out)


def make_rows(root: Path, rows: int) -> Figures:
    """Writes `rows` labelled JPEGs as parquet in the hub's layout."""
    began = time.perf_counter()
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq
    import simplejpeg

    noise = np.random.default_rng(0).integers(0, 256, (IMAGES, SIDE // 4, SIDE // 4, 3), np.uint8)
    jpegs = [simplejpeg.encode_jpeg(np.ascontiguousarray(each.repeat(4, 0).repeat(4, 1)), 90) for each in noise]
    names = [f"class {number:03d}" for number in range(CLASSES)]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    (root / "data").mkdir(parents=True)
    # Neither a dictionary nor compression: equal rows must take the room of different ones.
    path = root / "data" / "train-00000-of-00001.parquet"
    with pq.ParquetWriter(path, features.arrow_schema, use_dictionary=False, compression="none") as file:
        for first in range(0, rows, ROWS_A_GROUP):
            numbers = range(first, min(first + ROWS_A_GROUP, rows))
            images = [{"bytes": jpegs[n % IMAGES], "path": f"{n:08d}.jpg"} for n in numbers]
            table = pa.table({"image": images, "label": [n % CLASSES for n in numbers]}, schema=features.arrow_schema)
            file.write_table(table)
    return _figures(rows, time.perf_counter() - began, memory_mb("peak"))


def whole_epoch(data: Path) -> Figures:
    """One epoch of a training loader."""
    from shards import Loader, open_dataset

    split, began, count = open_dataset(data)["train"], time.perf_counter(), 0
    with Loader(split, batch_size=BATCH, train=True, size=SIDE, dtype="uint8", drop_last=False) as loader:
        for _, labels in loader:
            count += len(labels)
    return _figures(count, time.perf_counter() - began, memory_mb("peak"))


def jump(data: Path) -> Figures:
    """From the beginning of an epoch into its middle: the time to the batch there, in a loader that runs."""
    from shards import Loader, open_dataset

    with Loader(open_dataset(data)["train"], batch_size=BATCH, train=True, size=SIDE, dtype="uint8") as loader:
        next(iter(loader))
        state = loader.state_dict()
        began = time.perf_counter()
        loader.load_state_dict({**state, "position": loader.samples // 2 // BATCH * BATCH})
        next(iter(loader))
        return {"time": (time.perf_counter() - began, "s"), "memory": (memory_mb("peak"), "MB")}


def _timed(rows: int, *words: str) -> Figures:
    """A command: its time, and the most memory that its processes have had together, shared pages counted once."""
    most, done = [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(LOOK):
            most[0] = max(most[0], _memory_below(os.getpid()))

    watcher, began = threading.Thread(target=watch, daemon=True), time.perf_counter()
    watcher.start()
    try:
        run_command(*words, kept=False)
    finally:
        done.set()
        watcher.join()
    return _figures(rows, time.perf_counter() - began, most[0])


def _memory_below(pid: int) -> float:
    """MB of all processes that descend from a process, by their proportional shares; 0 for those that have ended."""
    total = 0.0
    for child in _children(pid):
        try:
            lines = Path(f"/proc/{child}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1e3
    return total


def _children(pid: int) -> Iterator[int]:
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found = [int(word) for word in task.read_text().split()]
        except OSError:
            continue
        for child in found:
            yield child
            yield from _children(child)


def _figures(rows: int, seconds: float, memory: float) -> Figures:
    return {"time": (seconds, "s"), "speed": (rows / seconds, "rows/s"), "memory": (memory, "MB")}
