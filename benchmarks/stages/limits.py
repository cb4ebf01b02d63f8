"""What this machine can do at most, each as an endless stream of image counts beside which the stages are measured.

Disk: the shards in sequence, with the page cache cold or warm. Memory: copying on every core. PCIe: page-locked memory
to the GPU. The limit of decoding is benchmarks/peers/turbojpeg.py.
"""

import contextlib
import itertools
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from benchmarks.measure.machine import cores
from shards.dataset import Split

# Reads in flight, as many as the loader has, the bytes of each, and the reads between two counts.
READERS, PIECE, COUNTED = 8, 1 << 20, 32
# Bytes of a copy: far more than a processor's caches hold.
COPIED = 64 << 20


def drop_pages(split: Split) -> None:
    """Drops the shards from the page cache, which needs no special rights; pages not yet on disk stay."""
    for path in split.shard_paths:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@contextlib.contextmanager
def disk(split: Split, cold: bool) -> Iterator[Iterator[float]]:
    """Reads the shards in sequence, pass after pass; `cold`: the page cache drops them before each pass."""
    sizes = [shard.bytes for shard in split.info.shards]
    pieces = [(shard, offset) for shard, size in enumerate(sizes) for offset in range(0, size, PIECE)]
    image_bytes = sum(sizes) / len(split)
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(path.open("rb")).fileno() for path in split.shard_paths]
        executor = stack.enter_context(ThreadPoolExecutor(READERS))

        def read(piece: tuple[int, int]) -> int:
            shard, offset = piece
            return len(os.pread(files[shard], PIECE, offset))

        def counts() -> Iterator[float]:
            while True:
                if cold:
                    drop_pages(split)
                for first in range(0, len(pieces), COUNTED):
                    yield sum(executor.map(read, pieces[first : first + COUNTED])) / image_bytes

        yield counts()


@contextlib.contextmanager
def memory_copy(image_bytes: int) -> Iterator[Iterator[float]]:
    """Copies memory, a thread on each core; images of `image_bytes` bytes."""
    sources = [np.ones(COPIED, np.uint8) for _ in range(cores())]
    targets = [np.empty_like(source) for source in sources]
    with ThreadPoolExecutor(cores()) as executor:
        copies = (list(executor.map(np.copyto, targets, sources)) for _ in itertools.repeat(None))
        yield (len(copied) * COPIED / image_bytes for copied in copies)


@contextlib.contextmanager
def pcie(image_bytes: int) -> Iterator[Iterator[float]]:
    """Copies page-locked memory to the GPU, which must exist; images of `image_bytes` bytes."""
    import torch

    source = torch.empty(COPIED, dtype=torch.uint8).pin_memory()
    target = torch.empty_like(source, device="cuda")

    def counts() -> Iterator[float]:
        while True:
            target.copy_(source, non_blocking=True)
            torch.cuda.synchronize()
            yield COPIED / image_bytes

    yield counts()
