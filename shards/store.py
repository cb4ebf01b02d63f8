"""The bytes of samples: read from shards by threads, several reads in flight, or from memory.

Reads are `preadv` into a buffer of the batch, ahead of need: on a cold disk or a network file system
the waiting is done by these threads, and a shard that was cut off, or a disk that fails, is an error
that names the place. (Memory-mapped shards save a copy of 1% of what the decode costs; but there a
failing read is a signal that ends the process, and the waiting falls to the decoder's threads.)
"""

import itertools
import os
import resource
import zlib
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from shards.buffers import Buffers
from shards.errors import ShardfeedError
from shards.memory import SplitMemory

# Reads in flight at once: more than a cold disk needs to be busy, too few to matter where it is warm.
READERS = 8

DAMAGED = "is damaged (its checksum is wrong)"


@dataclass(frozen=True)
class Places:
    """Where the bytes of n samples lie: Python integers, since numpy's cost more in every use."""

    shard: list[int]
    offset: list[int]
    size: list[int]
    crc32: list[int] | None = None
    """Of these bytes; None where they are only a part of what was summed."""

    def __len__(self) -> int:
        return len(self.shard)


@dataclass(frozen=True)
class Reading:
    """A batch of bytes on its way."""

    data: list[npt.NDArray[np.uint8]]
    _parts: list[Future[list[tuple[int, str]]]]

    def wait(self) -> list[tuple[int, str]]:
        """Waits until all bytes are there; returns the position and the trouble of each sample that is not right."""
        return [bad for part in self._parts for bad in part.result()]


class Store(Protocol):
    """Where bytes of samples come from."""

    def read(self, places: Places) -> Reading:
        """Begins to read samples and returns at once; the arrays hold their bytes after `Reading.wait`."""

    def announce(self, shard: int) -> None:
        """Says that much of a shard will be read soon; returns at once."""

    def close(self) -> None:
        """Ends what reads; nothing more is asked for."""


class MemoryStore:
    """Shards held in memory: what is read is a view. `check`: compare every sample with its CRC-32."""

    def __init__(self, memory: SplitMemory, check: bool = False) -> None:
        self._memory = memory
        self._check = check

    def read(self, places: Places) -> Reading:
        """Views of the samples; nothing is copied."""
        shards = self._memory.shards
        data = [
            shards[shard][offset : offset + size]
            for shard, offset, size in zip(places.shard, places.offset, places.size, strict=True)
        ]
        checked: Future[list[tuple[int, str]]] = Future()
        sums = places.crc32 if self._check and places.crc32 is not None else []
        checked.set_result([(i, DAMAGED) for i, crc32 in enumerate(sums) if zlib.crc32(data[i].data) != crc32])
        return Reading(data, [checked])

    def announce(self, shard: int) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do: the memory is free when the last view of it is gone."""


class ShardStore:
    """Shard files, open for reading.

    `paths` and `sizes`: each shard and its length in bytes by the manifest. Raises ShardfeedError for a shard that is
    missing or of another length. `check`: compare every sample with its CRC-32.
    """

    def __init__(self, paths: Sequence[Path], sizes: Sequence[int], check: bool = False) -> None:
        _allow_open_files(len(paths))
        self._paths = paths
        self._sizes = sizes
        self._check = check
        self._files: list[int] = []
        self._buffers = Buffers()
        try:
            for path, size in zip(paths, sizes, strict=True):
                self._files.append(_open(path, size))
        except BaseException:
            self._close_files()
            raise
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="shardfeed-read")

    def read(self, places: Places) -> Reading:
        """Begins to read samples and returns at once; the arrays hold their bytes after `Reading.wait`."""
        bounds = [0, *itertools.accumulate(places.size)]
        buffer = self._buffers.take((bounds[-1],), np.uint8)
        data = [buffer[first:last] for first, last in itertools.pairwise(bounds)]
        parts = [range(first, len(places), READERS) for first in range(min(READERS, len(places)))]
        return Reading(data, [self._readers.submit(self._read, places, data, part) for part in parts])

    def announce(self, shard: int) -> None:
        """Asks the kernel to read a whole shard into the page cache; returns at once."""
        os.posix_fadvise(self._files[shard], 0, self._sizes[shard], os.POSIX_FADV_WILLNEED)

    def close(self) -> None:
        """Ends the threads and closes the files."""
        self._readers.shutdown(cancel_futures=True)
        self._close_files()

    def _read(self, places: Places, data: list[npt.NDArray[np.uint8]], part: range) -> list[tuple[int, str]]:
        bad = []
        for i in part:
            crc32 = places.crc32[i] if self._check and places.crc32 is not None else None
            trouble = self._fill(data[i], places.shard[i], places.offset[i], crc32)
            if trouble is not None:
                bad.append((i, trouble))
        return bad

    def _fill(self, target: npt.NDArray[np.uint8], shard: int, offset: int, crc32: int | None) -> str | None:
        """Reads one sample; says in words what is wrong with it, None if nothing is."""
        done = 0
        while done < len(target):
            try:
                count = os.preadv(self._files[shard], [target[done:].data], offset + done)
            except OSError as error:
                return f"cannot be read ({error.strerror})"
            if count == 0:
                return "is not there: the file has been cut off"
            done += count
        if crc32 is not None and zlib.crc32(target.data) != crc32:
            return DAMAGED
        return None

    def _close_files(self) -> None:
        for file in self._files:
            os.close(file)
        self._files = []


def _open(path: Path, size: int) -> int:
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise ShardfeedError(f"cannot read shard {path}: {error.strerror}; copy or make the data set again") from None
    actual = os.fstat(file).st_size
    if actual != size:
        os.close(file)
        raise ShardfeedError(
            f"shard {path} has {actual:,} bytes, the manifest says {size:,}: it was cut off or changed; "
            "copy or make the data set again"
        )
    # Without this the kernel reads on past every random read, for pages that nobody wants.
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)
    return file


def _allow_open_files(count: int) -> None:
    """Raises the soft limit of open files if need be: ImageNet has 1,282 training shards, the usual limit is 1,024."""
    # What is open counts too: a process may hold several loaders. The rest is for what is opened later.
    need = sum(1 for _ in Path("/proc/self/fd").iterdir()) + count + 256
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < need:
        if hard != resource.RLIM_INFINITY and hard < need:
            raise ShardfeedError(
                f"{count} shards need {need} open files, this system allows {hard}: raise the hard limit "
                "(ulimit -Hn, limits.conf) or make larger shards (--shard-size)"
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (need, hard))
