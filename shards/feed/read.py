"""The sample reader: threads that read the bytes of planned batches, several reads in flight.

They read ahead of need, so on a cold disk, a network file system or an object store these threads do the waiting. The
bytes of a batch come into one buffer. A sample that is stored decoded goes into a buffer of the thread that read it,
which finishes its image at once, while the pixels are in that core's cache.

Each thread reads its part of a batch, and compares checksums, in one compiled loop. What that leaves (samples behind a
URL, failed reads, wrong checksums) is done again sample by sample, which says what is wrong.
"""

import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from zlib_ng.zlib_ng import crc32

from shards.common.compiled.pread import read_each
from shards.common.errors import Cancelled, ShardfeedError
from shards.decode.buffers import Buffers, EncodedSamples
from shards.decode.stored_pixels import StoredPixels
from shards.feed.threads import DaemonThreads
from shards.sampling.batch import NOT_COMPARED, ByteRanges, PlannedBatch

UInt8Array = npt.NDArray[np.uint8]
Int64Array = npt.NDArray[np.int64]
Descriptors = npt.NDArray[np.intc]
# A sample's place in its batch, and what is wrong with it: in words, or why its whole shard cannot be fetched.
Trouble = tuple[int, str | ShardfeedError]

DAMAGED = "is damaged (its checksum is wrong)"
# Samples that a thread reads at a time, if there are that many for each: waking it takes as long as reading a few.
# Several batches are being read, so all threads have work.
PART = 16
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

    def files(self, numbers: npt.NDArray[np.int32]) -> AbstractContextManager[Descriptors]:
        """Descriptors (n,) of those shards (n,) that are open files now, which stay open in the block; -1 for others.

        Returns at once.
        """

    def announce(self, numbers: Sequence[int]) -> None:
        """Is told which shards are read next, in this order; returns at once."""

    def close(self) -> None:
        """Closes everything; nobody reads any more."""


class Destination(Protocol):
    """Where the bytes of the samples of a batch go."""

    def read(self, files: Descriptors, part: Int64Array) -> npt.NDArray[np.bool_]:
        """Reads the samples `part` (k,) from open files (k,); returns which came whole (k,). -1 is no file."""

    def room(self, i: int) -> UInt8Array:
        """The bytes of sample i, or room for them."""

    def put(self, i: int, sample: UInt8Array) -> None:
        """Takes a sample that was read into its room by other means."""


@dataclass(frozen=True)
class BytesDestination:
    """Samples in one buffer, as they are stored."""

    ranges: ByteRanges
    samples: EncodedSamples

    def read(self, files: Descriptors, part: Int64Array) -> npt.NDArray[np.bool_]:
        """Reads the samples `part` (k,) from open files (k,); returns which came whole (k,). -1 is no file."""
        ranges = self.ranges
        where = ranges.offset[part], ranges.size[part], ranges.crc32[part]
        return read_each(files, *where, self.samples.buffer, self.samples.start[part])

    def room(self, i: int) -> UInt8Array:
        """The bytes of sample i, or room for them: a view of the buffer."""
        return self.samples[i]

    def put(self, i: int, sample: UInt8Array) -> None:
        """Takes a sample that was read by other means: it is in the buffer already."""


@dataclass(frozen=True)
class Reading:
    """A batch whose bytes are on their way.

    `data` is valid after `wait`: the encoded samples, or an array of images that the reading threads finished.
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
            being_read = [number for reading in self._under_way for number in reading.batch.ranges.shard.tolist()]
            self._shards.announce(list(dict.fromkeys(being_read + batch.upcoming)))
        if self._stored is not None:
            images = self._stored.images(batch)
            return self._submit(batch, images, self._stored.destination(batch, images, range(len(batch))))
        target = self._room(batch)
        return self._submit(batch, target.samples, target)

    def start_in_place(self, batch: PlannedBatch, data: Any, places: Sequence[int]) -> Reading:
        """Begins to read a batch whose sample i takes the place `places[i]` in the data of another one."""
        if self._stored is not None:
            return self._submit(batch, data, self._stored.destination(batch, data, places))
        target = self._room(batch)
        for i, place in enumerate(places):
            data[place] = target.room(i)
        return self._submit(batch, data, target)

    def _room(self, batch: PlannedBatch) -> BytesDestination:
        return BytesDestination(batch.ranges, EncodedSamples.room_for(batch.ranges.size, self._buffers))

    def _submit(self, batch: PlannedBatch, data: Any, target: Destination) -> Reading:
        count = len(batch)
        # Threads that also compute are one a core, and each batch is for all of them.
        parts = min(self._threads, count if self._stored is not None else -(-count // PART))
        futures = [self._readers.submit(self._read, batch, target, np.arange(i, count, parts)) for i in range(parts)]
        reading = Reading(batch, data, futures, self._stop)
        self._under_way.append(reading)
        return reading

    def close(self) -> None:
        """Ends the threads: reads that have not begun do not begin, and those that hang are given up."""
        self._readers.close()

    def _read(self, batch: PlannedBatch, target: Destination, part: Int64Array) -> list[Trouble]:
        """Reads the samples `part` of a batch; returns those that cannot be used."""
        ranges, troubles = batch.ranges, list[Trouble]()
        with self._shards.files(ranges.shard[part]) as files:
            came = target.read(files, part)
        for i in part[~came].tolist():
            sample = target.room(i)
            trouble = self._fill(sample, batch.cursor.epoch, ranges, i)
            if trouble is None and ranges.crc32[i] not in (NOT_COMPARED, crc32(sample.data)):
                trouble = DAMAGED
            if trouble is None:
                target.put(i, sample)
            else:
                troubles.append((i, trouble))
        return troubles

    def _fill(self, target: UInt8Array, epoch: int, ranges: ByteRanges, i: int) -> str | ShardfeedError | None:
        """Reads sample `i` of `ranges`; returns why that fails, None if it does not."""
        shard, offset, done = int(ranges.shard[i]), int(ranges.offset[i]), 0
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
        return None
