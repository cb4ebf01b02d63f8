"""The sample reader: threads that read the bytes of planned batches, several reads in flight.

They read ahead of need, so on a cold disk, a network file system or an object store these threads do the waiting. The
bytes of a batch come into one buffer. Or the thread that read a sample hands its bytes to a function at once, from a
buffer of its own: that is how stored pixels are finished while they are in that core's cache.
"""

import itertools
import threading
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from shards.decode.buffers import Buffers
from shards.sampling.batch import ByteRanges, PlannedBatch

UInt8Array = npt.NDArray[np.uint8]
# Called with a sample's place in its batch and its bytes, which stay valid until it returns.
OnSample = Callable[[int, UInt8Array], None]
# A sample's place in its batch, and what is wrong with it.
Trouble = tuple[int, str]

DAMAGED = "is damaged (its checksum is wrong)"
# Seconds between two looks at the stop event while bytes do not come.
LOOK = 0.05


class LoopStopped(Exception):
    """The feed loop is being stopped: nobody wants what is being waited for."""


class Shards(Protocol):
    """The shards of a split: files of this machine (`feed/local.py`), or behind a URL (`remote/prefetch.py`)."""

    def preadv(
        self, number: int, buffers: Sequence[memoryview], offset: int, stop: threading.Event | None = None
    ) -> int:
        """Reads bytes of a shard as `os.preadv` does; gives up a wait once `stop` is set.

        Raises OSError, or ShardfeedError where the shard cannot be read.
        """

    def prepare(self, number: int, offset: int, size: int) -> None:
        """Says that these bytes are read soon, so that many can be on their way at once; returns at once."""

    def announce(self, numbers: Sequence[int]) -> None:
        """Says which shards are read next, in this order; returns at once."""

    def close(self) -> None:
        """Closes everything; nobody reads any more."""


@dataclass(frozen=True)
class Reading:
    """A batch whose bytes are on their way."""

    batch: PlannedBatch
    data: list[UInt8Array]
    """The bytes of each sample, valid after `wait`; empty where the reading threads handed them on."""
    parts: list[Future[list[Trouble]]]

    stop: threading.Event

    def wait(self) -> list[Trouble]:
        """Waits until all bytes are there; returns the samples that cannot be used.

        Raises LoopStopped once the reader's stop event is set, and whatever the reading threads raised.
        """
        return [trouble for part in self.parts for trouble in self._result(part)]

    def _result(self, part: Future[list[Trouble]]) -> list[Trouble]:
        while True:
            try:
                return part.result(LOOK)
            except TimeoutError:
                if part.done():  # the part itself failed so
                    raise
                if self.stop.is_set():
                    raise LoopStopped from None


class SampleReader:
    """Reads planned batches from `shards` with `threads` threads, until `stop` is set.

    `check`: compare each sample with its CRC-32.
    """

    def __init__(self, shards: Shards, *, threads: int, check: bool = False, stop: threading.Event) -> None:
        self._shards = shards
        self._stop = stop
        self._check = check
        self._threads = threads
        self._buffers = Buffers()
        self._own = threading.local()
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="shardfeed-read")
        self._under_way: deque[Reading] = deque()

    def start(self, batch: PlannedBatch, on_sample: OnSample | None = None) -> Reading:
        """Begins to read a batch and returns at once.

        With `on_sample`, the thread that read a sample calls it, if the bytes are right.
        """
        while self._under_way and all(part.done() for part in self._under_way[0].parts):
            self._under_way.popleft()
        if batch.upcoming is not None:
            # Shards that are being read come first: they must not be released before.
            being_read = [number for reading in self._under_way for number in reading.batch.ranges.shard]
            self._shards.announce(list(dict.fromkeys(being_read + batch.upcoming)))
        data: list[UInt8Array] = []
        if on_sample is None:
            bounds = [0, *itertools.accumulate(batch.ranges.size)]
            buffer = self._buffers.take((bounds[-1],), np.uint8)
            data = [buffer[first:last] for first, last in itertools.pairwise(bounds)]
        count = len(batch)
        parts = [
            self._executor.submit(self._read, batch.ranges, data, on_sample, range(first, count, self._threads))
            for first in range(min(self._threads, count))
        ]
        reading = Reading(batch, data, parts, self._stop)
        self._under_way.append(reading)
        return reading

    def close(self) -> None:
        """Ends the threads: reads that have not begun do not begin."""
        self._executor.shutdown(cancel_futures=True)

    def _read(
        self, ranges: ByteRanges, data: list[UInt8Array], on_sample: OnSample | None, part: range
    ) -> list[Trouble]:
        troubles: list[Trouble] = []
        if on_sample is not None:  # threads that also compute are few: the bytes they wait for must be on their way
            for i in part:
                self._shards.prepare(ranges.shard[i], ranges.offset[i], ranges.size[i])
        for i in part:
            target = data[i] if on_sample is None else self._scratch(ranges.size[i])
            crc32 = ranges.crc32[i] if self._check and ranges.crc32 is not None else None
            trouble = self._fill(target, ranges.shard[i], ranges.offset[i], crc32)
            if trouble is not None:
                troubles.append((i, trouble))
            elif on_sample is not None:
                on_sample(i, target)
        return troubles

    def _scratch(self, size: int) -> UInt8Array:
        """This thread's own buffer: the same for each sample, so that it stays in the cache of the core."""
        if not hasattr(self._own, "buffer") or self._own.buffer.size < size:
            self._own.buffer = np.empty(size, np.uint8)
        return self._own.buffer[:size]  # type: ignore[no-any-return]

    def _fill(self, target: UInt8Array, shard: int, offset: int, crc32: int | None) -> str | None:
        """Reads one sample; returns what is wrong with it, None if nothing is."""
        done = 0
        while done < len(target):
            try:
                count = self._shards.preadv(shard, [target[done:].data], offset + done, self._stop)
            except OSError as error:
                return f"cannot be read ({error.strerror})"
            if count == 0:
                return "is not there: the file has been cut off"
            done += count
        if crc32 is not None and zlib.crc32(target.data) != crc32:
            return DAMAGED
        return None
