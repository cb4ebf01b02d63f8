"""How one shard of a remote split is had: from the cache, into it, or a range of its bytes.

When, and which, is the business of shards/remote/prefetch.py.
"""

import contextlib
import errno
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from shards.common.errors import ShardfeedError
from shards.common.redact import without_secrets
from shards.format.manifest import ShardInfo
from shards.remote.cache import BeingFetched, Cache
from shards.remote.object_store import ObjectStore, Cancelled

# Seconds between two looks at what another process fetches.
POLL = 0.05


class RemoteShards:
    """The shards of one split behind a URL, each by itself; threads may share it.

    `remote`: the directory of the split's shards; `shards`: by number, as the manifest names them.
    """

    def __init__(self, remote: ObjectStore, shards: Sequence[ShardInfo], cache: Cache) -> None:
        self.cache = cache
        self._remote = remote
        self._shards = shards
        self._stop = threading.Event()

    @property
    def stopped(self) -> bool:
        return self._stop.is_set()

    @property
    def directory(self) -> str:
        """The URL of all of them, for people."""
        return str(self._remote)

    def stop(self) -> None:
        """Ends what waits: it raises Cancelled."""
        self._stop.set()

    def size(self, number: int) -> int:
        """Bytes of a shard, by the manifest."""
        return self._shards[number].bytes

    def name(self, number: int) -> str:
        """The URL of a shard, for people."""
        return self._remote.at(self._shards[number].name)

    def pin(self, number: int) -> int | None:
        """A descriptor of the cached shard, which stays until it is closed; None where it is not in the cache."""
        return self.cache.pin(self._shards[number].sha256, self._shards[number].bytes)

    def fetch(self, number: int) -> int | None:
        """The shard, from the cache or downloaded into it, as a descriptor as of `pin`; None where there is no room.

        Raises BeingFetched where another process is at it, Cancelled after `stop`, ShardfeedError where it cannot be had.
        """
        with self._in_words(number):
            file = self.pin(number)
            return self._download(number) if file is None else file

    def read_range(self, number: int, buffers: Sequence[memoryview], offset: int) -> int:
        """Bytes of a shard as `os.preadv` reads them, by a request of their own: their number, 0 at its end.

        Raises ShardfeedError where they cannot be had.
        """
        views = [buffer.cast("B") for buffer in buffers]
        length = min(sum(map(len, views)), max(0, self.size(number) - offset))
        if not length:
            return 0
        try:
            data = self._remote.read_range(self._shards[number].name, offset, length, self._stop)
        except (FileNotFoundError, Cancelled):
            raise self._missing(number) from None
        done = 0
        for view in views:
            part = data[done : done + len(view)]
            view[: len(part)] = part
            done += len(part)
        return length

    @contextlib.contextmanager
    def _in_words(self, number: int) -> Iterator[None]:
        """Says of whatever is in the way of a shard which one it is, and what to do: ShardfeedError."""
        try:
            yield
        except (BeingFetched, Cancelled, ShardfeedError):
            raise
        except FileNotFoundError:
            raise self._missing(number) from None
        except OSError as error:
            why = "no space is left there" if error.errno == errno.ENOSPC else error.strerror or str(error)
            raise ShardfeedError(
                f"{self.name(number)} cannot be kept in {self.cache.directory}: {why} (--cache-dir, --cache-size)"
            ) from None
        except Exception as error:
            said = without_secrets(f"{type(error).__name__}: {error}")
            raise ShardfeedError(f"{self.name(number)} cannot be fetched: {said}") from None

    def _download(self, number: int) -> int | None:
        shard = self._shards[number]
        return self.cache.fetch(shard.sha256, shard.bytes, self._download_to(number), self.name(number))

    def _download_to(self, number: int) -> Callable[[Path], None]:
        return lambda target: self._remote.fetch(self._shards[number].name, target, self._stop)

    def _missing(self, number: int) -> ShardfeedError:
        return ShardfeedError(f"{self.name(number)} is not there, and the manifest names it: upload it again")
