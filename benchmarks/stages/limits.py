"""What this machine can do at most, as contenders that take turns with the stages that they limit.

Disk: the shards, in sequence (large pieces) or sample by sample in random order, with the page cache cold or warm.
Decoding: libjpeg-turbo alone on every core. Memory: copying on every core. PCIe: page-locked memory to the GPU.
Images are counted by the mean size of this data set's samples.
"""

import contextlib
import functools
import itertools
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np

from benchmarks.measure.harness import Contender
from benchmarks.measure.machine import cores
from benchmarks.peers.turbojpeg import decoding
from shards.common.errors import ShardfeedError
from shards.dataset import Split

# Reads in flight, as many as the loader has, and the bytes that a sequential reader asks for.
READERS, PIECE = 8, 1 << 20
# Bytes between two counts of a disk; bytes of a copy, far more than a processor's caches hold.
COUNTED, COPIED = 32 << 20, 64 << 20

Range = tuple[int, int, int]  # shard, offset, bytes


def disk(name: str, split: Split, order: Literal["sequence", "random"], *, cold: bool) -> Contender:
    """Reads the shards pass after pass; with `cold`, their pages leave the page cache before each pass."""
    return Contender(name, functools.partial(_reading, split, order, cold), float, depth=1)


def libjpeg(name: str, split: Split) -> Contender:
    """Decodes whole images of the split by libjpeg-turbo, as benchmarks/peers/turbojpeg.py does."""
    return Contender(name, functools.partial(decoding, split, cores()), float, depth=cores())


def memory_copy(name: str, image_bytes: int) -> Contender:
    """Copies memory, a thread on each core; images of `image_bytes` bytes."""
    return Contender(name, functools.partial(_copying, image_bytes), float, depth=1)


def pcie(name: str, image_bytes: int) -> Contender:
    """Copies page-locked memory to the GPU, which must exist; images of `image_bytes` bytes."""
    import torch

    return Contender(name, functools.partial(_sending, image_bytes), float, depth=1, sync=torch.cuda.synchronize)


def drop_pages(paths: Iterable[Path]) -> None:
    """Drops the page cache of these files alone, which needs no special rights; pages not yet on disk stay."""
    for path in paths:
        with _opened(path) as file:
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)


def cached_share(paths: Iterable[Path], looks: int = 64) -> float | None:
    """The share of these files that the page cache holds, by `looks` looks at each; None where it cannot be told.

    A look is a read that refuses to wait for the disk (RWF_NOWAIT). The kernel then fetches the page, so only the first
    look after `drop_pages` is meaningful.
    """
    page, found = bytearray(1), []
    for path in paths:
        with _opened(path) as file:
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)  # a look must not fetch neighbouring pages
            for offset in np.linspace(0, os.fstat(file).st_size - 1, looks).astype(np.int64).tolist():
                try:
                    found.append(os.preadv(file, [page], offset, os.RWF_NOWAIT))
                except BlockingIOError:
                    found.append(0)
                except (OSError, AttributeError):  # the file system does not know the flag
                    return None
    return sum(found) / len(found) if found else None


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield file
    finally:
        os.close(file)


@contextlib.contextmanager
def _reading(split: Split, order: Literal["sequence", "random"], cold: bool) -> Iterator[Iterator[float]]:
    samples = order == "random"
    image = float(split.index.size.mean()) if samples else split.info.bytes / len(split)
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(_opened(path)) for path in split.shard_paths]
        executor = stack.enter_context(ThreadPoolExecutor(READERS))
        for file in files:
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM if samples else os.POSIX_FADV_SEQUENTIAL)

        def read(ranges: list[Range]) -> int:
            return sum(os.preadv(files[shard], [np.empty(size, np.uint8).data], at) for shard, at, size in ranges)

        def counts() -> Iterator[float]:
            while True:
                if cold:
                    drop_pages(split.shard_paths)
                for ranges in _counted(_samples(split) if samples else _pieces(split)):
                    done = sum(executor.map(read, (ranges[first::READERS] for first in range(READERS))))
                    if not done:
                        raise ShardfeedError(f"the shards of {split.root} are empty: there is nothing to read")
                    yield done / image

        yield counts()


def _samples(split: Split) -> Iterator[Range]:
    """All samples, in a random order."""
    index = split.index
    ranges = np.stack([index.shard.astype(np.int64), index.offset, index.size.astype(np.int64)], axis=-1)
    yield from map(tuple, ranges[np.random.default_rng(0).permutation(len(split))].tolist())


def _pieces(split: Split) -> Iterator[Range]:
    """All shards in sequence, in pieces."""
    for shard, info in enumerate(split.info.shards):
        for offset in range(0, info.bytes, PIECE):
            yield shard, offset, min(PIECE, info.bytes - offset)


def _counted(ranges: Iterator[Range]) -> Iterator[list[Range]]:
    """The ranges in groups of COUNTED bytes or a little more."""
    group, size = list[Range](), 0
    for each in ranges:
        group.append(each)
        size += each[2]
        if size >= COUNTED:
            yield group
            group, size = [], 0
    if group:
        yield group


@contextlib.contextmanager
def _copying(image_bytes: int) -> Iterator[Iterator[float]]:
    sources = [np.ones(COPIED, np.uint8) for _ in range(cores())]
    targets = [np.empty_like(source) for source in sources]
    with ThreadPoolExecutor(cores()) as executor:
        copies = (list(executor.map(np.copyto, targets, sources)) for _ in itertools.repeat(None))
        yield (len(copied) * COPIED / image_bytes for copied in copies)


@contextlib.contextmanager
def _sending(image_bytes: int) -> Iterator[Iterator[float]]:
    import torch

    source = torch.empty(COPIED, dtype=torch.uint8).pin_memory()
    target = torch.empty_like(source, device="cuda")

    def counts() -> Iterator[float]:
        while True:
            for _ in range(8):
                target.copy_(source, non_blocking=True)
            torch.cuda.synchronize()
            yield 8 * COPIED / image_bytes

    yield counts()
