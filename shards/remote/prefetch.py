"""Shards of a remote data set, made local ahead of use: whole, in the order in which an epoch needs them.

    shards = RemoteShards(Supply(remote, split.info.shards, Cache()))
    shards.announce([17, 3, 29])                   # needed next, in this order; whatever else is held may go
    count = shards.preadv(17, [buffer], offset)    # waits until the shard is here

Of what is announced, as much as the cache can hold, from the front, is fetched into it by a few threads and stays there
until it is announced no more. Whatever else is asked for is read by range requests, sample by sample. How a shard is
had is the business of shards/remote/shards.py.
"""

import contextlib
import heapq
import os
import threading
import time
import warnings
from collections.abc import Iterator, Sequence

from shards.common.errors import ShardfeedError
from shards.common.machine import allow_open_files
from shards.remote.cache import BeingFetched
from shards.remote.object_store import Stopped
from shards.remote.shards import POLL, Supply

# Downloads at once: what one connection leaves idle, several fill, and each is a whole shard of disk.
FETCHERS = 4
# Seconds between two looks at whether there is room now.
POLL_ROOM = 1.0
# Seconds that closing waits for a download to notice. Its thread ends with the process in any case.
GRACE = 2.0


class RemoteShards:
    """The shards of one split behind a URL; threads may share it."""

    def __init__(self, supply: Supply) -> None:
        self._supply = supply
        self._changed = threading.Condition()
        # All below is guarded by the condition. A shard that is wanted is in one of: _files, _errors, _fetching,
        # _not_before, or in _waiting for its turn. Nothing goes through all that is wanted but `announce`: there may
        # be a hundred thousand.
        self._wanted: dict[int, int] = {}  # and its place among what is wanted
        self._waiting: list[tuple[int, int]] = []  # a heap of places and numbers; may hold what has come since
        self._files: dict[int, int] = {}
        self._errors: dict[int, ShardfeedError] = {}
        self._fetching: set[int] = set()
        self._no_room_from: int | None = None  # the place from which on there is no room
        self._changes = 0  # of what is wanted and held: what was found out about room before one is out of date
        self._not_before: dict[int, float] = {}  # what other processes fetch, and when to look at it again
        self._reads: dict[int, int] = {}
        self._warned = False
        self._threads: list[threading.Thread] = []

    def announce(self, numbers: Sequence[int]) -> None:
        """These shards are needed next, in this order; others are let go of once nobody reads them. Returns at once."""
        with self._changed:
            self._wanted = {number: place for place, number in enumerate(self._that_fit(numbers))}
            allow_open_files(len(self._wanted))
            self._errors.clear()
            self._not_before.clear()
            self._room_changed()
            for number in list(self._files):
                self._let_go(number)
            self._pin_what_is_here()
            here = self._files.keys() | self._fetching
            self._waiting = [(place, number) for number, place in self._wanted.items() if number not in here]
            if not self._threads:
                names = [f"shardfeed-fetch-{number}" for number in range(FETCHERS)]
                self._threads = [threading.Thread(target=self._work, name=name, daemon=True) for name in names]
                for thread in self._threads:
                    thread.start()
            self._changed.notify_all()

    def prepare(self, number: int, offset: int, size: int) -> None:
        """Nothing to do: whole shards are fetched ahead, and there are threads enough for ranges."""

    def preadv(
        self, number: int, buffers: Sequence[memoryview], offset: int, stop: threading.Event | None = None
    ) -> int:
        """Reads bytes of a shard as `os.preadv` does: waits for one that is announced, asks for a range of others.

        Returns the number of bytes read, 0 at the end of the shard. Raises ShardfeedError where it cannot be had.
        """
        with self._held(number) as file:
            if file is not None:
                return os.preadv(file, list(buffers), offset)
        if offset < self._supply.size(number):
            self._warn()
        return self._supply.read_range(number, buffers, offset)

    def stop(self) -> None:
        """Ends the threads. Reads that still wait raise ShardfeedError."""
        with self._changed:
            self._supply.stop()
            self._changed.notify_all()

    def close(self) -> None:
        """Ends the threads and lets go of all shards."""
        self.stop()
        with self._changed:
            self._wanted = {}
            self._not_before.clear()
            for number in list(self._files):
                self._let_go(number)
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(GRACE)

    @contextlib.contextmanager
    def _held(self, number: int) -> Iterator[int | None]:
        """A descriptor of the shard that stays open meanwhile; None where the shard is not, and will not be, local."""
        with self._changed:
            self._changed.wait_for(lambda: self._supply.stopped or not self._is_coming(number))
            if self._supply.stopped:
                raise ShardfeedError(f"{self._supply.name(number)} is asked for after the end")
            if number in self._errors:
                raise self._errors[number]
            file = self._files.get(number)
            if file is None and (file := self._supply.pin(number)) is not None:
                self._files[number] = file
            self._reads[number] = self._reads.get(number, 0) + 1
        try:
            yield file
        finally:
            with self._changed:
                self._reads[number] -= 1
                self._let_go(number)

    def _is_coming(self, number: int) -> bool:
        place = self._wanted.get(number)
        if place is None or number in self._files or number in self._errors:
            return False
        under_way = number in self._fetching or number in self._not_before
        return under_way or self._no_room_from is None or place < self._no_room_from

    def _let_go(self, number: int) -> None:
        """Unpins a shard that is neither wanted nor read, which makes room."""
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
        left = self._supply.cache.bytes
        for number in numbers:
            left -= self._supply.size(number)
            if left < 0:
                return
            yield number

    def _pin_what_is_here(self) -> None:
        """Keeps what is cached and wanted from making room for something else that is wanted."""
        for number in self._wanted:
            if number not in self._files and (file := self._supply.pin(number)) is not None:
                self._files[number] = file

    def _work(self) -> None:
        """What each fetching thread does: takes the first shard that is wanted and not here, until the end."""
        while True:
            with self._changed:
                number = self._next()
                while number is None and not self._supply.stopped:
                    # What other processes fetch, or let go of, nobody tells this one.
                    pause = POLL if self._not_before else POLL_ROOM if self._no_room_from is not None else None
                    if not self._changed.wait(pause) and pause == POLL_ROOM:
                        self._no_room_from = None
                    number = self._next()
                if self._supply.stopped or number is None:
                    return
                self._fetching.add(number)
                changes = self._changes
            self._fetch(number, changes)

    def _next(self) -> int | None:
        if self._supply.stopped:
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
            heapq.heappop(self._waiting)  # it has come by another way
        return None

    def _fetch(self, number: int, changes: int) -> None:
        file: int | None = None
        failure: ShardfeedError | None = None
        try:
            file = self._supply.fetch(number)
        except BeingFetched:
            # The next one on the list meanwhile: so processes that want the same divide it among them.
            with self._changed:
                self._fetching.discard(number)
                if number in self._wanted:
                    self._not_before[number] = time.monotonic() + POLL
                self._changed.notify_all()
            return
        except Stopped:
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
                    # Other processes hold what they want. The shards after this one are about as large.
                    if changes == self._changes:
                        known = self._no_room_from
                        self._no_room_from = place if known is None else min(place, known)
            elif number in self._files:
                os.close(file)
            else:
                # Freshly written, its pages are in memory; should they go, only what is asked for comes back.
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)
                self._files[number] = file
                self._let_go(number)
            self._changed.notify_all()

    def _warn(self) -> None:
        with self._changed:
            if self._warned or not self._threads:
                return
            self._warned = True
        cache = self._supply.cache
        warnings.warn(
            f"the cache in {cache.directory}, of {cache.bytes / 1e9:,.1f} GB, does not hold what is read of "
            f"{self._supply.directory} at once: the rest is read by range requests, sample by sample, which is slower "
            "(--cache-size)",
            stacklevel=2,
        )
