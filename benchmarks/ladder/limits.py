"""What this machine can do at most, measured on the spot: the ceilings that a loader's figures are held against.

Disk: the shards, read in sequence (large pieces) and sample by sample in random order, from a cold page cache
and from a warm one. A cold cache is had by dropping the pages of the shards alone, with posix_fadvise, which needs
no special rights. Decoding: libjpeg-turbo without anything around it, one process a core. Memory: copying, one
thread a core. PCIe: page-locked memory to the GPU.
"""

import functools
import itertools
import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from benchmarks.measure.harness import Clock, Schedule, Window
from shards.common.errors import ShardfeedError
from shards.dataset import Split

# Reads in flight, as many as the loader has; and the piece that a sequential reader asks for.
READERS, PIECE = 8, 1 << 20
# Images that a bare decoder goes round in: enough to be typical, few enough to be read in no time.
DECODED = 256
# Bytes of a copy: far more than a processor's caches hold.
COPIED = 64 << 20


@dataclass(frozen=True)
class Limit:
    """A ceiling: in bytes a second of what it moves, and in images a second of this data set and batch."""

    bytes_per_s: float
    images_per_s: float


@dataclass(frozen=True)
class Ceiling:
    """A limit that takes turns with what it limits. measure: gives it, from about so many seconds."""

    name: str
    measure: Callable[[float], Limit]

    def turn(self, schedule: Schedule, clock: Clock = time.perf_counter) -> Window:
        """One window, with images/s alone: what the measurement is made of has its own ways to count."""
        limit = self.measure(schedule.seconds)
        images = max(1, round(limit.images_per_s * schedule.seconds))
        return Window(images, images / limit.images_per_s)


def disk(split: Split, seconds: float, *, cold: bool, order: str) -> Limit:
    """Reading the shards with READERS reads in flight, for about `seconds` (pages dropped in between if `cold`).

    order: "sequence" reads shards from their beginnings in pieces of PIECE bytes; "random" reads samples.
    Images are counted by the mean length of a sample in the shards, headers and padding included in the former.
    """
    files = [os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in split.shard_paths]
    try:
        advice = os.POSIX_FADV_RANDOM if order == "random" else os.POSIX_FADV_SEQUENTIAL
        for file in files:
            os.posix_fadvise(file, 0, 0, advice)
        if order == "random":
            plan, total = _samples(split), int(split.index.size.sum(dtype=np.int64))
        else:
            plan, total = _pieces(split), split.info.bytes
        done, spent = _timed_reads(files, plan, total, seconds, cold)
    finally:
        for file in files:
            os.close(file)
    an_image = float(split.index.size.mean()) if order == "random" else split.info.bytes / len(split)
    return Limit(done / spent, done / spent / an_image)


def drop_pages(paths: Iterable[Path]) -> None:
    """Drops the page cache of these files alone; pages not yet written to disk stay."""
    for path in paths:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(file)


def cached_share(paths: Iterable[Path], looks: int = 64) -> float | None:
    """The share of these files that the page cache holds, by up to `looks` looks at each; None where it is not told.

    A look is a read that refuses to wait for the disk (RWF_NOWAIT). The kernel fetches what was looked at all the same,
    so only the first look after `drop_pages` tells something.
    """
    page = bytearray(1)
    asked = found = 0
    for path in paths:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)  # a look must not bring its neighbours in
            for offset in np.linspace(0, os.fstat(file).st_size - 1, looks).astype(np.int64).tolist():
                asked += 1
                try:
                    found += os.preadv(file, [page], offset, os.RWF_NOWAIT)
                except BlockingIOError:
                    continue
        except (OSError, AttributeError):
            return None  # a file system that does not know the flag
        finally:
            os.close(file)
    return found / asked if asked else None


def jpeg_decode(split: Split, processes: int, seconds: float) -> Limit:
    """libjpeg-turbo's accurate decoder (simplejpeg), whole images, in `processes` processes side by side.

    Raises ShardfeedError where no image of the split is one that it decodes.
    """
    context = multiprocessing.get_context("spawn")
    data = jpegs(split)
    running = []
    for seat in range(processes):
        here, there = context.Pipe()
        process = context.Process(target=_decode, args=(data[seat:] + data[:seat], seconds, there), daemon=True)
        process.start()
        there.close()
        running.append((process, here))
    try:
        for _, here in running:
            _receive(here)  # ready: imports are done
        for _, here in running:
            here.send(None)
        rate = sum(_receive(here) for _, here in running)
    finally:
        for process, here in running:
            process.kill()
            process.join()
            here.close()
    mean = sum(map(len, data)) / len(data)
    return Limit(rate * mean, rate)


def jpegs(split: Split, count: int = DECODED) -> list[bytes]:
    """The encoded bytes of up to `count` samples, evenly spread over the split."""
    index = split.index
    found = []
    for row in np.unique(np.linspace(0, len(split) - 1, count).astype(np.int64)).tolist():
        with split.shard_paths[int(index.shard[row])].open("rb") as file:
            file.seek(int(index.offset[row]))
            found.append(file.read(int(index.size[row])))
    return found


def memory_copy(image_bytes: int, threads: int, seconds: float) -> Limit:
    """Copying memory, `threads` threads at once; images of `image_bytes` bytes."""
    sources = [np.ones(COPIED, np.uint8) for _ in range(threads)]
    targets = [np.empty_like(source) for source in sources]
    with ThreadPoolExecutor(threads) as executor:
        copy = functools.partial(executor.map, np.copyto, targets, sources)
        rate = _rate(lambda: len(list(copy())) * COPIED, seconds)
    return Limit(rate, rate / image_bytes)


def pcie(image_bytes: int, seconds: float) -> Limit:
    """Copying page-locked memory to the GPU, which there must be; images of `image_bytes` bytes."""
    import torch

    source = torch.empty(COPIED, dtype=torch.uint8).pin_memory()
    target = torch.empty_like(source, device="cuda")

    def copy() -> int:
        for _ in range(8):
            target.copy_(source, non_blocking=True)
        torch.cuda.synchronize()
        return 8 * COPIED

    rate = _rate(copy, seconds)
    return Limit(rate, rate / image_bytes)


def _rate(step: Callable[[], int], seconds: float) -> float:
    """What `step` returns, a second, over about `seconds`; its first call does not count."""
    step()
    done, start = 0, time.perf_counter()
    while (now := time.perf_counter()) - start < seconds or not done:
        done += step()
    return done / (now - start) if now > start else float(done)


def _samples(split: Split) -> Iterator[tuple[int, int, int]]:
    """Shard, offset and length of all samples, in an order without pattern, over and over."""
    index = split.index
    places = np.stack([index.shard.astype(np.int64), index.offset, index.size.astype(np.int64)], axis=-1)
    shuffled = np.random.default_rng(0).permutation(len(split))
    while True:
        yield from ((shard, offset, size) for shard, offset, size in places[shuffled].tolist())


def _pieces(split: Split) -> Iterator[tuple[int, int, int]]:
    """Shard, offset and length of the pieces of all shards in sequence, over and over."""
    while True:
        for shard, info in enumerate(split.info.shards):
            for offset in range(0, info.bytes, PIECE):
                yield shard, offset, min(PIECE, info.bytes - offset)


def _timed_reads(
    files: list[int], plan: Iterator[tuple[int, int, int]], total: int, seconds: float, cold: bool
) -> tuple[int, float]:
    """Bytes read and seconds spent: passes of `total` bytes each, the last one as far as the time goes."""
    done, spent = 0, 0.0

    def read(places: list[tuple[int, int, int]]) -> int:
        return sum(os.preadv(files[shard], [np.empty(size, np.uint8).data], at) for shard, at, size in places)

    def read_all(places: list[tuple[int, int, int]]) -> int:
        return sum(executor.map(read, (places[first::READERS] for first in range(READERS))))

    with ThreadPoolExecutor(READERS) as executor:
        if not cold:  # the pass that warms the cache does not count
            read_all(_pass(plan, min(total, 1 << 30)))
        while spent < seconds:
            if cold:
                for file in files:
                    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            left = total
            start = time.perf_counter()
            while left > 0 and spent + time.perf_counter() - start < seconds:
                got = read_all(_pass(plan, min(left, 32 * PIECE)))
                done, left = done + got, left - got
            spent += time.perf_counter() - start
            if not done:
                raise ShardfeedError("the shards are empty: nothing can be read to measure the disk")
    return done, spent


def _pass(plan: Iterator[tuple[int, int, int]], size: int) -> list[tuple[int, int, int]]:
    """The next places of the plan, `size` bytes or a little more."""
    places, taken = [], 0
    while taken < size:
        places.append(next(plan))
        taken += places[-1][2]
    return places


def _decode(data: list[bytes], seconds: float, connection: Connection) -> None:
    """Says that it is ready, waits to be told to begin, decodes for `seconds`, and sends its images a second."""
    import simplejpeg

    usable = []
    for each in data:
        try:
            simplejpeg.decode_jpeg(each, "RGB")
        except ValueError:
            continue  # ways of subsampling that it does not know
        usable.append(each)
    if not usable:
        connection.send("no image that libjpeg-turbo decodes by itself is among those of the data set")
        return
    connection.send(0.0)
    connection.recv()
    endless = itertools.cycle(usable)

    def decode() -> int:
        for each in itertools.islice(endless, 16):
            simplejpeg.decode_jpeg(each, "RGB")
        return 16

    connection.send(_rate(decode, seconds))


def _receive(connection: Connection) -> float:
    try:
        answer = connection.recv()
    except EOFError:
        raise ShardfeedError("a process that decodes died: its message is above") from None
    if isinstance(answer, str):
        raise ShardfeedError(answer)
    return float(answer)
