"""The bytes of samples: read from shards by threads, several reads in flight, or from memory.

Reads are ahead of need: on a cold disk, a network file system or a remote store the waiting is done by these threads.
They read into a buffer of the batch, or into their own, whose bytes they hand on at once. Where the shards lie is
the business of shards/feed/local.py and shards/remote/prefetch.py.
"""

import itertools
import threading
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from shards.decode.buffers import Buffers

# Threads that read: more than a cold disk needs to be busy, too few to matter where it is warm.
READERS = 8

# What is done with a sample at once: it gets its position and its bytes, which are there until it returns.
Use = Callable[[int, npt.NDArray[np.uint8]], None]

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
    """The bytes of each sample; none where they were used at once."""
    _parts: list[Future[list[tuple[int, str]]]]

    def wait(self) -> list[tuple[int, str]]:
        """Waits until all bytes are there; returns the position and the trouble of each sample that is not right."""
        return [bad for part in self._parts for bad in part.result()]

    def cancel(self) -> None:
        """Nobody wants these bytes: what has not begun does not begin."""
        for part in self._parts:
            part.cancel()


class Shards(Protocol):
    """The shards of a split, wherever they lie: files of this machine, or behind a URL."""

    def preadv(self, number: int, buffers: Sequence[memoryview], offset: int) -> int:
        """Reads bytes of a shard as `os.preadv` does. Raises OSError, or ShardfeedError where it cannot be had."""

    def prepare(self, number: int, offset: int, size: int) -> None:
        """Says that these bytes are read soon, so that many can be on their way at once; returns at once."""

    def announce(self, numbers: Sequence[int]) -> None:
        """Says which shards are read next, in this order; returns at once."""

    def stop(self) -> None:
        """Ends reads that wait for something."""

    def close(self) -> None:
        """Lets go of all; nobody reads any more."""


class Store(Protocol):
    """Where bytes of samples come from."""

    def read(self, places: Places, use: Use | None = None) -> Reading:
        """Begins to read samples and returns at once; the arrays hold their bytes after `Reading.wait`.

        With `use`, there are no arrays: the thread that read a sample calls it, if the bytes are right.
        """

    def announce(self, shards: Sequence[int]) -> None:
        """Says which shards are read next, in this order; returns at once."""

    def close(self) -> None:
        """Ends what reads; nothing more is asked for."""


class ShardStore:
    """Threads that read from `shards`. `check`: compare every sample with its CRC-32.

    `threads`: how many; what a `use` costs the processor, and not reading, should decide where there is one.
    """

    def __init__(self, shards: Shards, check: bool = False, threads: int = READERS) -> None:
        self._shards = shards
        self._check = check
        self._buffers = Buffers()
        self._own = threading.local()
        self._threads = threads
        self._readers = ThreadPoolExecutor(threads, thread_name_prefix="shardfeed-read")

    def read(self, places: Places, use: Use | None = None) -> Reading:
        """Begins to read samples and returns at once; the arrays hold their bytes after `Reading.wait`.

        With `use`, there are no arrays: the thread that read a sample calls it, if the bytes are right.
        """
        data: list[npt.NDArray[np.uint8]] = []
        if use is None:
            bounds = [0, *itertools.accumulate(places.size)]
            buffer = self._buffers.take((bounds[-1],), np.uint8)
            data = [buffer[first:last] for first, last in itertools.pairwise(bounds)]
        return Reading(data, _in_parts(self._readers, self._threads, len(places), self._read, places, data, use))

    def announce(self, shards: Sequence[int]) -> None:
        """Has what is read next made ready, in this order; returns at once."""
        self._shards.announce(shards)

    def close(self) -> None:
        """Ends the threads and lets go of the shards."""
        self._shards.stop()
        self._readers.shutdown(cancel_futures=True)
        self._shards.close()

    def _read(
        self, places: Places, data: list[npt.NDArray[np.uint8]], use: Use | None, part: range
    ) -> list[tuple[int, str]]:
        bad = []
        if use is not None:  # threads that also work are few: what they wait for has to be on its way before
            for i in part:
                self._shards.prepare(places.shard[i], places.offset[i], places.size[i])
        for i in part:
            target = data[i] if use is None else self._scratch(places.size[i])
            crc32 = places.crc32[i] if self._check and places.crc32 is not None else None
            trouble = self._fill(target, places.shard[i], places.offset[i], crc32)
            if trouble is not None:
                bad.append((i, trouble))
            elif use is not None:
                use(i, target)
        return bad

    def _scratch(self, size: int) -> npt.NDArray[np.uint8]:
        """This thread's own buffer: the same for each sample, so that it stays in the cache of the core."""
        if not hasattr(self._own, "buffer") or self._own.buffer.size < size:
            self._own.buffer = np.empty(size, np.uint8)
        return self._own.buffer[:size]  # type: ignore[no-any-return]

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


def _in_parts(
    threads: ThreadPoolExecutor, count: int, samples: int, work: Callable[..., list[tuple[int, str]]], *args: Any
) -> list[Future[list[tuple[int, str]]]]:
    """Begins `work(*args, part)` for `count` parts of range(samples)."""
    return [threads.submit(work, *args, range(first, samples, count)) for first in range(min(count, samples))]
