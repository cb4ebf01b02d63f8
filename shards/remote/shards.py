"""Gets one remote shard: from the cache, by download into the cache, or as a byte range.

shards/remote/prefetch.py decides which shard, and when.
"""

import contextlib
import errno
import hashlib
import os
import threading
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from shards.common.errors import Cancelled, ShardfeedError, ShardfeedWarning
from shards.common.redact import without_secrets
from shards.common.terminal import advice, cache_moves
from shards.format.manifest import ShardInfo
from shards.remote.cache import BeingFetched, Cache
from shards.remote.object_store import ObjectStore

# Errors of a cache that another user has made and this one may only read.
READ_ONLY = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
# Seconds between two looks at a shard that another process downloads.
POLL = 0.05


class RemoteShards:
    """The shards of one split behind a URL, by number; threads may share it.

    `store`: the directory of the split's shards; `shards`: as the manifest names them. `places`: where they lie if not
    under their names, in the store or (absolute paths) on this machine. All that waits here ends with Cancelled after
    `stop`.
    """

    def __init__(
        self, store: ObjectStore, shards: Sequence[ShardInfo], cache: Cache, places: Sequence[str] | None = None
    ) -> None:
        self.cache = cache
        self._store = store
        self._shards = shards
        self._places = [shard.name for shard in shards] if places is None else places
        self._stop = threading.Event()
        self._warned_read_only = False

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stop.is_set()

    @property
    def directory(self) -> str:
        """The URL of the directory of the shards, for messages."""
        return str(self._store)

    def stop(self) -> None:
        """Ends all waiting: for answers, pauses between attempts, locks."""
        self._stop.set()

    def size(self, number: int) -> int:
        """Bytes of a shard, by the manifest."""
        return self._shards[number].bytes

    def name(self, number: int) -> str:
        """The URL of a shard, for messages."""
        return self._places[number] if self._is_here(number) else self._store.at(self._places[number])

    def pin(self, number: int, stop: threading.Event | None = None) -> int | None:
        """A descriptor of a cached shard, which keeps it in the cache until `os.close`; None where it is not cached."""
        if self._is_here(number):
            with self._explained(number):
                return os.open(self._places[number], os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        return self.cache.pin(self._key(number), self._shards[number].bytes, stop or self._stop)

    def fetch(self, number: int, stop: threading.Event | None = None) -> int | None:
        """A shard, from the cache or downloaded into it, as a descriptor as `pin` gives.

        None where there is no room, or where the cache may only be read. `stop`: see `read_range`.

        Raises BeingFetched where another process downloads it, Cancelled after `stop`, ShardfeedError where it cannot
        be read or kept.
        """
        with self._explained(number):
            file = self.pin(number, stop)
            if file is not None:
                return file
            try:
                return self._download(number, stop or self._stop)
            except OSError as error:
                if error.errno not in READ_ONLY:
                    raise
                self._warn_read_only()
                return None

    def read_range(
        self, number: int, buffers: Sequence[memoryview], offset: int, stop: threading.Event | None = None
    ) -> int:
        """Reads bytes of a shard into `buffers`, as `os.preadv` does, by one request; returns how many, 0 at its end.

        A store that knows no ranges is asked for the whole shard, which goes into the cache if there is room.

        `stop`: an event of the caller's that ends the wait, in place of this object's own. Raises ShardfeedError where
        the bytes cannot be read, Cancelled where the wait was ended.
        """
        views = [buffer.cast("B") for buffer in buffers]
        length = min(sum(map(len, views)), max(0, self.size(number) - offset))
        if not length:
            return 0
        if self._is_here(number) and (file := self.pin(number)) is not None:
            try:
                return os.preadv(file, list(buffers), offset)
            finally:
                os.close(file)
        if not self._store.knows_ranges and (file := self._fetched_whole(number, stop or self._stop)) is not None:
            try:
                return os.preadv(file, list(buffers), offset)
            finally:
                os.close(file)
        try:
            data = self._store.read_range(self._places[number], offset, length, stop or self._stop)
        except FileNotFoundError:
            raise self._missing(number) from None
        done = 0
        for view in views:
            part = data[done : done + len(view)]
            view[: len(part)] = part
            done += len(part)
        return length

    @contextlib.contextmanager
    def _explained(self, number: int) -> Iterator[None]:
        """Turns errors of the block into ShardfeedError, with the shard's URL and what to do."""
        try:
            yield
        except (BeingFetched, Cancelled, ShardfeedError):
            raise
        except FileNotFoundError:
            raise self._missing(number) from None
        except OSError as error:
            why = "no space is left there" if error.errno == errno.ENOSPC else error.strerror or str(error)
            raise ShardfeedError(
                f"{self.name(number)} cannot be kept in {self.cache.directory}: {why} "
                f"({cache_moves()}; {advice('Cache(bytes=...)', '--cache-size')} bounds it)"
            ) from None
        except Exception as error:
            said = without_secrets(f"{type(error).__name__}: {error}")
            raise ShardfeedError(f"{self.name(number)} cannot be fetched: {said}") from None

    def _fetched_whole(self, number: int, stop: threading.Event) -> int | None:
        """What `fetch` returns, after a wait where another process or thread downloads the shard."""
        while True:
            try:
                return self.fetch(number, stop)
            except BeingFetched:
                if stop.wait(POLL):
                    raise Cancelled from None

    def _download(self, number: int, stop: threading.Event) -> int | None:
        shard = self._shards[number]

        def download(target: Path) -> None:
            self._store.fetch(self._places[number], target, stop)

        compare = bool(shard.sha256)
        return self.cache.fetch(self._key(number), shard.bytes, download, self.name(number), stop, compare=compare)

    def _is_here(self, number: int) -> bool:
        """Whether a shard is a file of this machine, as those are that hold cleaned images of others' tars."""
        return self._places[number].startswith("/")

    def _key(self, number: int) -> str:
        """What names a shard in the cache: its SHA-256, or where nobody knows it that of its URL, length and mark."""
        shard = self._shards[number]
        identity = f"{self.name(number)}\n{shard.bytes}\n{shard.modified}"
        return shard.sha256 or hashlib.sha256(identity.encode()).hexdigest()

    def _warn_read_only(self) -> None:
        if not self._warned_read_only:
            self._warned_read_only = True
            warnings.warn(
                f"the cache in {self.cache.directory} may be read and not written: what it does not hold is read by "
                f"range requests, sample by sample, which is slower ({cache_moves()})",
                ShardfeedWarning,
                stacklevel=2,
            )

    def _missing(self, number: int) -> ShardfeedError:
        return ShardfeedError(f"{self.name(number)} is not there, and the manifest names it: upload it again")
