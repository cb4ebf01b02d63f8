"""The sample reader: threads that read the bytes of planned batches, several reads in flight.

They read ahead of need, so on a cold disk, a network file system or an object store these threads do the waiting. The
bytes of a batch come into one buffer. A sample that is stored decoded goes into a buffer of the thread that read it,
which finishes its image at once, while the pixels are in that core's cache.
"""

import itertools
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from zlib_ng.zlib_ng import crc32

from shards.common.errors import Cancelled, ShardfeedError
from shards.decode.buffers import Buffers
from shards.decode.stored_pixels import StoredPixels
from shards.feed.threads import DaemonThreads
from shards.sampling.batch import ByteRanges, PlannedBatch

UInt8Array = npt.NDArray[np.uint8]
# Called with a sample's place in its batch and its bytes, which are valid until it returns.
OnSample = Callable[[int, UInt8Array], None]
# A sample's place in its batch, and what is wrong with it: in words, or why its whole shard cannot be fetched.
Trouble = tuple[int, str | ShardfeedError]

DAMAGED = "is damaged (its checksum is wrong)"
# Seconds between two looks at the stop event while bytes do not come.
LOOK = 0.05


class Shards(Protocol):
    """The shards of a split: files of this machine (`feed/local.py`), or behind a URL (`remote/prefetch.py`)."""

    def preadv(
        self, number: int, buffers: Sequence[memoryview], offset: int, stop: threading.Event | None = None
    ) -> int:
        """Reads bytes of a shard as `os.preadv` does; gives up a wait once `stop` is set.

        Raises OSError, or ShardfeedError where the shard cannot be read.
        """

    def prepare(self, number: int, offset: int, size: int) -> None:
        """Is told that these bytes are read soon, so that many can be on their way at once; returns at once."""

    def announce(self, numbers: Sequence[int]) -> None:
        """Is told which shards are read next, in this order; returns at once."""

    def close(self) -> None:
        """Closes everything; nobody reads any more."""


@dataclass(frozen=True)
class Reading:
    """A batch whose bytes are on their way.

    `data` is valid after `wait`: the bytes of each sample, or an array of images that the reading threads finished.
    """

    batch: PlannedBatch
    data: Any
    parts: list[Future[list[Trouble]]]
    stop: threading.Event

    def wait(self) -> list[Trouble]:
        """Waits until all bytes are there; returns the samples that cannot be used.

        Raises Cancelled once the reader's stop event is set, and whatever the reading threads raised.
        """
        return [trouble for part in self.parts for trouble in self._result(part)]

    def _result(self, part: Future[list[Trouble]]) -> list[Trouble]:
        while True:
            try:
                return part.result(LOOK)
            except TimeoutError:
                if part.done():  # the read itself raised TimeoutError
                    raise
                if self.stop.is_set():
                    raise Cancelled from None


class SampleReader:
    """Reads planned batches from `shards` with `threads` threads, until `stop` is set.

    `stored`: what finishes samples that are stored decoded.
    """

    def __init__(
        self,
        shards: Shards,
        *,
        threads: int,
        stop: threading.Event,
        stored: StoredPixels | None = None,
    ) -> None:
        self._shards = shards
        self._threads = threads
        self._stop = stop
        self._stored = stored
        self._buffers = Buffers()
        self._own = threading.local()
        self._readers = DaemonThreads(threads, "shardfeed-read")
        self._under_way: deque[Reading] = deque()
        # Shards that could not be fetched, by epoch and number: an object store that is gone fails slowly, so it is
        # asked once an epoch, not once a sample.
        self._unfetched: dict[tuple[int, int], ShardfeedError] = {}

    def start(self, batch: PlannedBatch) -> Reading:
        """Begins to read a batch and returns at once."""
        while self._under_way and all(part.done() for part in self._under_way[0].parts):
            self._under_way.popleft()
        if batch.upcoming is not None:
            # Shards that are being read come first: announcing without them would release them.
            being_read = [number for reading in self._under_way for number in reading.batch.ranges.shard]
            self._shards.announce(list(dict.fromkeys(being_read + batch.upcoming)))
        if self._stored is not None:
            images = self._stored.images(batch)
            return self._submit(batch, images, self._stored.on_sample(batch, images, range(len(batch))))
        bounds = [0, *itertools.accumulate(batch.ranges.size)]
        buffer = self._buffers.take((bounds[-1],), np.uint8)
        return self._submit(batch, [buffer[first:last] for first, last in itertools.pairwise(bounds)], None)

    def start_in_place(self, batch: PlannedBatch, data: Any, places: Sequence[int]) -> Reading:
        """Begins to read a batch whose sample i takes the place `places[i]` in the data of another one."""
        if self._stored is not None:
            return self._submit(batch, data, self._stored.on_sample(batch, data, places))

        def put(i: int, sample: UInt8Array) -> None:
            data[places[i]] = sample.copy()

        return self._submit(batch, data, put)

    def _submit(self, batch: PlannedBatch, data: Any, on_sample: OnSample | None) -> Reading:
        count = len(batch)
        parts = [
            self._readers.submit(self._read, batch, data, on_sample, range(first, count, self._threads))
            for first in range(min(self._threads, count))
        ]
        reading = Reading(batch, data, parts, self._stop)
        self._under_way.append(reading)
        return reading

    def close(self) -> None:
        """Ends the threads: reads that have not begun do not begin, and those that hang are given up."""
        self._readers.close()

    def _read(self, batch: PlannedBatch, data: Any, on_sample: OnSample | None, part: range) -> list[Trouble]:
        """Reads the samples of `part` into `data`, or hands each to `on_sample` if its bytes are right."""
        ranges, troubles = batch.ranges, list[Trouble]()
        if on_sample is not None:  # threads that also compute are few: the bytes they wait for must be on their way
            for i in part:
                self._shards.prepare(ranges.shard[i], ranges.offset[i], ranges.size[i])
        for i in part:
            target = data[i] if on_sample is None else self._scratch(ranges.size[i])
            trouble = self._fill(target, batch.cursor.epoch, ranges, i)
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

    def _fill(self, target: UInt8Array, epoch: int, ranges: ByteRanges, i: int) -> str | ShardfeedError | None:
        """Reads sample `i` of `ranges`; returns what is wrong with it, None if nothing is."""
        shard, offset, expected, done = ranges.shard[i], ranges.offset[i], ranges.crc32[i], 0
        if self._unfetched and (epoch, shard) in self._unfetched:
            return self._unfetched[epoch, shard]
        while done < len(target):
            try:
                count = self._shards.preadv(shard, [target[done:].data], offset + done, self._stop)
            except OSError as error:
                return f"cannot be read ({error.strerror})"
            except ShardfeedError as error:
                if self._stop.is_set():
                    raise Cancelled from None
                self._unfetched[epoch, shard] = error
                return error
            if count == 0:
                return "is not there: the file has been cut off"
            done += count
        if expected is not None and crc32(target.data) != expected:
            return DAMAGED
        return None
