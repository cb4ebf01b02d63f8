"""Downloads shards of a remote split ahead of use: whole, in the order in which an epoch needs them.

    shards = Prefetcher(RemoteShards(store, split.info.shards, Cache()))
    shards.announce([17, 3, 29])                   # needed next, in this order; other shards may leave the cache
    count = shards.preadv(17, [buffer], offset)    # waits until the shard is here

A few threads download the announced shards into the cache, from the front, as many as it can hold; they stay there
until an announcement without them. Other reads are range requests, sample by sample. shards/remote/shards.py gets each
shard.
"""

import contextlib
import heapq
import os
import threading
import time
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from shards.common.errors import Cancelled, ShardfeedError, ShardfeedWarning
from shards.common.machine import allow_open_files
from shards.common.terminal import advice
from shards.remote.cache import BeingFetched
from shards.remote.shards import POLL, RemoteShards

# Downloads at once: several fill what one connection leaves idle, and each is a whole shard of disk.
FETCHERS = 4
# Seconds between two looks at whether there is room now.
POLL_ROOM = 1.0
# Seconds that closing waits for downloads, which are cancelled; those from the Hub cannot be, and are given up. Their
# threads end with the process.
GRACE = 0.5


class Prefetcher:
    """The shards of one split behind a URL, downloaded ahead; threads may share it."""

    def __init__(self, shards: RemoteShards) -> None:
        self._shards = shards
        self._changed = threading.Condition()
        # The condition guards everything below. An announced shard is in one of: _files, _errors, _fetching,
        # _not_before, or in _waiting for its turn. Only `announce` goes through all announced shards: there may be a
        # hundred thousand.
        self._wanted: dict[int, int] = {}  # the announced shards that the cache can hold, each with its place in line
        self._waiting: list[tuple[int, int]] = []  # a heap of places and numbers; some may have arrived since
        self._files: dict[int, int] = {}
        self._errors: dict[int, ShardfeedError] = {}
        self._fetching: set[int] = set()
        self._no_room_from: int | None = None  # the place in line from which on there is no room
        self._changes = 0  # of _wanted and _files: what a download found out about room before one is out of date
        self._not_before: dict[int, float] = {}  # shards that other processes download, and when to look again
        self._reads: dict[int, int] = {}
        self._warned = False
        self._threads: list[threading.Thread] = []

    def announce(self, numbers: Sequence[int]) -> None:
        """These shards are needed next, in this order; others are unpinned once nobody reads them. Returns at once."""
        with self._changed:
            self._wanted = {number: place for place, number in enumerate(self._that_fit(numbers))}
            allow_open_files(len(self._wanted))
            self._errors.clear()
            self._not_before.clear()
            self._room_changed()
            for number in list(self._files):
                self._let_go(number)
            with contextlib.suppress(Cancelled):  # after `stop` nothing is read any more
                self._pin_cached()
            here = self._files.keys() | self._fetching
            self._waiting = [(place, number) for number, place in self._wanted.items() if number not in here]
            if not self._threads:
                names = [f"shardfeed-fetch-{number}" for number in range(FETCHERS)]
                self._threads = [threading.Thread(target=self._work, name=name, daemon=True) for name in names]
                for thread in self._threads:
                    thread.start()
            self._changed.notify_all()

    @contextlib.contextmanager
    def files(self, numbers: npt.NDArray[np.int32]) -> Iterator[npt.NDArray[np.intc]]:
        """Descriptors (n,) of those shards (n,) that are here, which stay open in the block; -1 for others."""
        wanted = numbers.tolist()
        with self._changed:
            here = {number: self._files[number] for number in set(wanted) if number in self._files}
            for number in here:
                self._reads[number] = self._reads.get(number, 0) + 1
        try:
            yield np.array([here.get(number, -1) for number in wanted], np.intc)
        finally:
            with self._changed:
                for number in here:
                    self._reads[number] -= 1
                    self._let_go(number)

    def preadv(
        self, number: int, buffers: Sequence[memoryview], offset: int, stop: threading.Event | None = None
    ) -> int:
        """Reads bytes of a shard as `os.preadv` does: waits for an announced shard, requests a range of another one.

        Returns the number of bytes read, 0 at the end of the shard. A wait ends once `stop` is set. Raises
        ShardfeedError where they cannot be read, and after the end.
        """
        try:
            with self._held(number, stop) as file:
                if file is not None:
                    return os.preadv(file, list(buffers), offset)
            if offset < self._shards.size(number):
                self._warn()
            return self._shards.read_range(number, buffers, offset, stop)
        except Cancelled:
            raise self._ended(number) from None

    def stop(self) -> None:
        """Ends the threads. Reads that still wait raise ShardfeedError."""
        self._shards.stop()  # before the condition is taken: its holder may be waiting for a lock
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """Ends the threads and unpins all shards."""
        self.stop()
        with self._changed:
            self._wanted = {}
            self._not_before.clear()
            for number in list(self._files):
                self._let_go(number)
            self._changed.notify_all()
        until = time.monotonic() + GRACE
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    @contextlib.contextmanager
    def _held(self, number: int, stop: threading.Event | None) -> Iterator[int | None]:
        """A descriptor of the shard that stays open in the block; None for a shard to be read by ranges."""

        def ended() -> bool:
            return self._shards.stopped or (stop is not None and stop.is_set())

        with self._changed:
            while not ended() and self._is_coming(number):
                self._changed.wait(POLL)  # nobody notifies when `stop` is set
            if ended():
                raise self._ended(number)
            if number in self._errors:
                raise self._errors[number]
            file = self._files.get(number)
            if file is None and (file := self._shards.pin(number)) is not None:
                self._files[number] = file
            self._reads[number] = self._reads.get(number, 0) + 1
        try:
            yield file
        finally:
            with self._changed:
                self._reads[number] -= 1
                self._let_go(number)

    def _ended(self, number: int) -> ShardfeedError:
        return ShardfeedError(f"{self._shards.name(number)} is read after the loader was closed")

    def _is_coming(self, number: int) -> bool:
        place = self._wanted.get(number)
        if place is None or number in self._files or number in self._errors:
            return False
        under_way = number in self._fetching or number in self._not_before
        return under_way or self._no_room_from is None or place < self._no_room_from

    def _let_go(self, number: int) -> None:
        """Unpins a shard that is neither announced nor being read, which makes room."""
        if number in self._wanted or self._reads.get(number) or number not in self._files:
            return
        os.close(self._files.pop(number))
        self._reads.pop(number, None)
        self._room_changed()
        self._changed.notify_all()

    def _room_changed(self) -> None:
        self._changes += 1
        self._no_room_from = None

    def _that_fit(self, numbers: Sequence[int]) -> Iterator[int]:
        """The first ones, as many as the cache can hold: a later one must never take the room of an earlier one."""
        left = self._shards.cache.bytes
        for number in numbers:
            left -= self._shards.size(number)
            if left < 0:
                return
            yield number

    def _pin_cached(self) -> None:
        """Pins announced shards that are cached, so that they do not make room for other announced shards."""
        for number in self._wanted:
            if number not in self._files and (file := self._shards.pin(number)) is not None:
                self._files[number] = file

    def _work(self) -> None:
        """One downloading thread: takes the first announced shard that is not here, until `stop`."""
        while True:
            with self._changed:
                number = self._next()
                while number is None and not self._shards.stopped:
                    # Other processes tell this one neither what they download nor what they unpin.
                    pause = POLL if self._not_before else POLL_ROOM if self._no_room_from is not None else None
                    if not self._changed.wait(pause) and pause == POLL_ROOM:
                        self._no_room_from = None
                    number = self._next()
                if self._shards.stopped or number is None:
                    return
                self._fetching.add(number)
                changes = self._changes
            self._fetch(number, changes)

    def _next(self) -> int | None:
        """The number of the shard to download now; None where there is none."""
        if self._shards.stopped:
            return None
        now = time.monotonic()
        due = [number for number, when in self._not_before.items() if when <= now]
        if due:
            number = min(due, key=self._wanted.__getitem__)
            del self._not_before[number]
            return number
        while self._waiting:
            place, number = self._waiting[0]
            if self._is_coming(number):
                return heapq.heappop(self._waiting)[1]
            if self._no_room_from is not None and place >= self._no_room_from:
                return None
            heapq.heappop(self._waiting)  # it has arrived by another way
        return None

    def _fetch(self, number: int, changes: int) -> None:
        file: int | None = None
        failure: ShardfeedError | None = None
        try:
            file = self._shards.fetch(number)
        except BeingFetched:
            # The next one in line meanwhile: so processes that want the same shards divide them.
            with self._changed:
                self._fetching.discard(number)
                if number in self._wanted:
                    self._not_before[number] = time.monotonic() + POLL
                self._changed.notify_all()
            return
        except Cancelled:
            return
        except ShardfeedError as error:
            failure = error
        with self._changed:
            self._fetching.discard(number)
            if failure is not None:
                self._errors[number] = failure
            elif file is None:
                place = self._wanted.get(number)
                if place is not None:
                    heapq.heappush(self._waiting, (place, number))
                    # Other processes pin their shards. The shards after this one are about as large.
                    if changes == self._changes:
                        known = self._no_room_from
                        self._no_room_from = place if known is None else min(place, known)
            elif number in self._files:
                os.close(file)
            else:
                # Freshly written, its pages are in memory; once they leave it, only the bytes that are read come back.
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)
                self._files[number] = file
                self._let_go(number)
            self._changed.notify_all()

    def _warn(self) -> None:
        with self._changed:
            if self._warned or not self._threads:
                return
            self._warned = True
        cache = self._shards.cache
        warnings.warn(
            f"the cache in {cache.directory}, of {cache.bytes / 1e9:,.1f} GB, does not hold the shards of "
            f"{self._shards.directory} that are read at once: the rest is read by range requests, sample by sample, "
            f"which is slower ({advice('Cache(bytes=...)', '`python -m train --cache-size`')} changes that)",
            ShardfeedWarning,
            stacklevel=2,
        )
