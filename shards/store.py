"""The bytes of samples: read from shards by threads, several reads in flight, or from memory.

Reads are into a buffer of the batch, ahead of need: on a cold disk, a network file system or a remote store the
waiting is done by these threads. Where the shards lie is the business of shards/files.py and shards/fetcher.py.
"""

import itertools
import zlib
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from shards.buffers import Buffers
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


class Shards(Protocol):
    """The shards of a split, wherever they lie: files of this machine, or behind a URL."""

    def preadv(self, number: int, buffers: Sequence[memoryview], offset: int) -> int:
        """Reads bytes of a shard as `os.preadv` does. Raises OSError, or ShardfeedError where it cannot be had."""

    def announce(self, numbers: Sequence[int]) -> None:
        """Says which shards are read next, in this order; returns at once."""

    def stop(self) -> None:
        """Ends reads that wait for something."""

    def close(self) -> None:
        """Lets go of all; nobody reads any more."""


class Store(Protocol):
    """Where bytes of samples come from."""

    def read(self, places: Places) -> Reading:
        """Begins to read samples and returns at once; the arrays hold their bytes after `Reading.wait`."""

    def announce(self, shards: Sequence[int]) -> None:
        """Says which shards are read next, in this order; returns at once."""

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

    def announce(self, shards: Sequence[int]) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do: the memory is free when the last view of it is gone."""


class ShardStore:
    """Threads that read from `shards`. `check`: compare every sample with its CRC-32."""

    def __init__(self, shards: Shards, check: bool = False) -> None:
        self._shards = shards
        self._check = check
        self._buffers = Buffers()
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="shardfeed-read")

    def read(self, places: Places) -> Reading:
        """Begins to read samples and returns at once; the arrays hold their bytes after `Reading.wait`."""
        bounds = [0, *itertools.accumulate(places.size)]
        buffer = self._buffers.take((bounds[-1],), np.uint8)
        data = [buffer[first:last] for first, last in itertools.pairwise(bounds)]
        parts = [range(first, len(places), READERS) for first in range(min(READERS, len(places)))]
        return Reading(data, [self._readers.submit(self._read, places, data, part) for part in parts])

    def announce(self, shards: Sequence[int]) -> None:
        """Has what is read next made ready, in this order; returns at once."""
        self._shards.announce(shards)

    def close(self) -> None:
        """Ends the threads and lets go of the shards."""
        self._shards.stop()
        self._readers.shutdown(cancel_futures=True)
        self._shards.close()

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
                count = self._shards.preadv(shard, [target[done:].data], offset + done)
            except OSError as error:
                return f"cannot be read ({error.strerror})"
            if count == 0:
                return "is not there: the file has been cut off"
            done += count
        if crc32 is not None and zlib.crc32(target.data) != crc32:
            return DAMAGED
        return None
