"""Files behind a URL (`s3://`, `gs://`, `hf://`, `http(s)://`), through fsspec, with retries and clear errors.

A request that fails for a moment is tried again, with longer and longer pauses, for about a minute beyond what the
storage library tries by itself, and longer where the store asks for it. Where credentials are refused, the connection
is opened anew once, in case they have been renewed meanwhile. Errors name the file and never hold credentials: see
shards/common/redact.py.
"""

import asyncio
import contextlib
import errno
import threading
import warnings
from collections.abc import Callable
from concurrent import futures
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tenacity import (
    RetryCallState,
    RetryError,
    Retrying,
    retry_if_exception,
    sleep_using_event,
    stop_after_attempt,
    wait_exponential,
    wait_random_exponential,
)

from shards.common.errors import Cancelled, ShardfeedError, ShardfeedWarning, UsageError
from shards.common.redact import check_no_secrets
from shards.common.terminal import advice
from shards.remote.answers import is_refused, may_pass, retry_after, said, say_once
from shards.remote.urls import open_anew, open_files

T = TypeVar("T")

ATTEMPTS = 8
FIRST_PAUSE = 0.5  # seconds; each further pause is twice as long
LONGEST_PAUSE = 30.0
# Seconds before the next attempt that a store may ask for (Retry-After); after it another attempt is made all the same.
LONGEST_WISH = 600.0
# Seconds between two looks at the stop event while an answer does not come.
LOOK = 0.05
# The verb of requests for a part of a file.
RANGE = "read in part"
# Requests for which a missing file means a missing bucket.
WRITING = frozenset({"uploaded", "written"})

# URLs of servers that answer with whole files, and what guards them.
_noting = threading.Lock()
_without_ranges: set[str] = set()


@dataclass(frozen=True)
class Stored:
    """A file in a store: its name, its bytes, and a mark that changes with its content."""

    name: str
    size: int
    version: str


@dataclass(frozen=True)
class ObjectStore:
    """A directory behind a URL. Names of files are relative to it, with "/" between their parts.

    Raises UsageError for a URL that holds credentials or is of no known kind, MissingDependency where the package
    for it is not installed. It pickles: every process opens its own connection.
    """

    url: str

    def __post_init__(self) -> None:
        scheme, _, rest = self.url.partition("://")
        object.__setattr__(self, "url", f"{scheme.lower()}://{rest.rstrip('/')}")
        check_no_secrets(self.url)
        if self.scheme in ("http", "https") and "#" in self.url:
            raise UsageError(
                f"{self.url} holds a #, and what follows it never reaches a web server: leave it out, or write %23 for "
                "a # in a name"
            )
        open_files(self.url)

    def __str__(self) -> str:
        return self.url

    @property
    def scheme(self) -> str:
        """The part of the URL before "://", in small letters."""
        return self.url.partition("://")[0]

    def at(self, name: str) -> str:
        """The URL of a file."""
        return f"{self.url}/{name}" if name else self.url

    def read(self, name: str, stop: threading.Event | None = None) -> bytes:
        """A whole file.

        Raises FileNotFoundError, ShardfeedError where it cannot be read, Cancelled soon after `stop` is set.
        """
        data: bytes = self._tried("read", name, lambda files, path: _until(stop, files, "cat_file", path), stop)
        return data

    def read_range(self, name: str, start: int, length: int, stop: threading.Event | None = None) -> bytes:
        """`length` bytes of a file from `start` on. Raises as `read` does; a shorter answer counts as a failure."""

        def ranged(files: Any, path: str) -> bytes:
            data: bytes = _until(stop, files, "cat_file", path, start=start, end=start + length)
            if len(data) > length:
                self._warn_no_ranges()
                data = data[start : start + length]
            if len(data) != length:
                raise OSError(errno.EIO, f"{len(data)} of {length} bytes came")
            return data

        return self._tried(RANGE, name, ranged, stop)

    def fetch(self, name: str, target: Path, stop: threading.Event | None = None) -> None:
        """Downloads a file to `target`. Raises as `read` does, and OSError for a full disk."""
        self._tried("fetched", name, lambda files, path: _until(stop, files, "get_file", path, str(target)), stop)

    def put(self, source: Path, name: str) -> None:
        """Uploads a file. Raises ShardfeedError where that fails."""
        self._tried("uploaded", name, lambda files, path: files.put_file(str(source), path))

    def write(self, name: str, data: bytes) -> None:
        """Writes a small file. Raises ShardfeedError where that fails."""
        self._tried("written", name, lambda files, path: files.pipe_file(path, data))

    def create(self, name: str, data: bytes) -> None:
        """Writes a small file unless there is one of that name, in one step where the store offers that.

        S3 does (`If-None-Match`). Where a store does not, two writers at the same moment may both believe that the
        file is theirs: read it again before something depends on it.
        """

        def create(files: Any, path: str) -> None:
            try:
                files.pipe_file(path, data, mode="create")
            except FileExistsError:
                pass
            except OSError as error:
                # "412 Precondition Failed" of stores that do not say which condition.
                files.invalidate_cache()
                if error.errno != errno.EINVAL or not files.exists(path):
                    raise

        self._tried("written", name, create)

    def sizes(self, name: str = "") -> dict[str, int]:
        """Bytes of each file directly in a directory, by its name there; -1 for directories. Empty if there is none."""

        def listing(files: Any, path: str) -> list[dict[str, Any]]:
            entries: list[dict[str, Any]] = files.ls(path, detail=True)
            return entries

        try:
            entries = self._tried("listed", name, listing)
        except FileNotFoundError:
            return {}
        found = {}
        for entry in entries:
            size = -1 if entry["type"] == "directory" else int(entry["size"] or 0)
            found[str(entry["name"]).rstrip("/").rpartition("/")[2]] = size
        found.pop("", None)
        return found

    def size(self, name: str) -> int | None:
        """Bytes of a file; None where there is none."""

        def size(files: Any, path: str) -> int:
            return int(files.info(path)["size"] or 0)

        try:
            return self._tried("looked at", name, size)
        except FileNotFoundError:
            return None

    def look(self, name: str) -> Stored | None:
        """A file's length and mark; None where there is none."""
        try:
            return self._tried("looked at", name, lambda files, path: _stored(name, files.info(path)))
        except FileNotFoundError:
            return None

    def remove(self, name: str) -> None:
        """Removes a directory and all in it, or a file; does nothing if there is none."""
        with contextlib.suppress(FileNotFoundError):
            self._tried("removed", name, lambda files, path: files.rm(path, recursive=True))

    def below(self) -> list[Stored]:
        """All files in the directory and its subdirectories, in the order of their names."""

        def listing(files: Any, path: str) -> list[Stored]:
            start = len(path.rstrip("/")) + 1
            entries = [entry for entry in files.find(path, detail=True).values() if entry["type"] == "file"]
            return sorted((_stored(str(entry["name"])[start:], entry) for entry in entries), key=lambda file: file.name)

        try:
            return self._tried("listed", "", listing)
        except FileNotFoundError:
            return []

    @property
    def knows_ranges(self) -> bool:
        """False once an answer to a request for a part of a file was the whole file."""
        return self.url not in _without_ranges

    def _warn_no_ranges(self) -> None:
        with _noting:
            known = not self.knows_ranges
            _without_ranges.add(self.url)
        if not known:
            warnings.warn(
                f"{self.url} answers a request for a part of a file with the whole file, so shards are fetched whole, "
                "and again for each sample where the cache has no room: let it hold all shards that are read at once "
                f"({advice('Cache(bytes=...)', '`python -m train --cache-size`')})",
                ShardfeedWarning,
                stacklevel=2,
            )

    def _wished(self, state: RetryCallState) -> float:
        """Seconds that the store asks to wait, at most LONGEST_WISH; says so. 0 where it asks for nothing."""
        wished = retry_after(state.outcome.exception() if state.outcome else None)
        if not wished or state.attempt_number >= ATTEMPTS:
            return 0.0
        pause = min(wished, LONGEST_WISH)
        how = "" if pause == wished else f"; waiting {pause:,.0f} s, the longest wait"
        say_once(f"{self.url} is busy and asks to wait {wished:,.0f} s before the next attempt{how}", pause)
        return pause

    def _tried(self, what: str, name: str, call: Callable[[Any, str], T], stop: threading.Event | None = None) -> T:
        """Returns call(file system, path of the file), tried again while it fails with what may pass.

        `what`: the verb for messages. Raises Cancelled before the next attempt once `stop` is set.
        """
        stop = stop or threading.Event()
        # Half of each pause is random: ranks that failed together do not come back together.
        growing = wait_exponential(FIRST_PAUSE / 2, LONGEST_PAUSE / 2) + wait_random_exponential(
            FIRST_PAUSE / 2, LONGEST_PAUSE / 2
        )
        attempts = Retrying(
            retry=retry_if_exception(may_pass),
            stop=stop_after_attempt(ATTEMPTS),
            wait=lambda state: growing(state) + self._wished(state),
            sleep=sleep_using_event(stop),
        )

        def attempt() -> T:
            if stop.is_set():
                raise Cancelled
            files = open_files(self.url)
            # The libraries keep listings, which know nothing of what other processes have written since. A range is of
            # a shard that stays what it is, and on the Hub new listings for each would be several requests more.
            if what != RANGE:
                files.invalidate_cache()
            path = str(files._strip_protocol(self.url))
            path = f"{path.rstrip('/')}/{name}" if name else path
            try:
                return call(files, path)
            except Exception as error:
                if not is_refused(error):
                    raise
                return call(open_anew(self.url, files), path)

        cannot = f"{self.at(name)} cannot be {what}"
        try:
            return attempts(attempt)
        except RetryError as error:
            last = said(error.last_attempt.exception())
            raise ShardfeedError(
                f"{cannot} ({ATTEMPTS} attempts; the last: {last}): check the network and the store, and start the "
                "same command again"
            ) from None
        except NotImplementedError:
            raise UsageError(f"{cannot}: {self.scheme}:// does not offer that") from None
        except FileNotFoundError as error:
            if what not in WRITING:
                raise
            raise ShardfeedError(f"{cannot}: {said(error)}; check the spelling of the bucket") from None
        except Exception as error:
            if not is_refused(error):
                raise
            hint = "are the credentials right, and may they do this?"
            raise ShardfeedError(f"{cannot}: {said(error)}; {hint}") from None


def _until(stop: threading.Event | None, files: Any, method: str, *given: Any, **named: Any) -> Any:
    """What a method of a file system returns. Cancels its request, and raises Cancelled, soon after `stop` is set.

    File systems that are not asynchronous (the Hub's) cannot cancel: who waits for their threads must give them up.
    """
    if stop is None or not files.async_impl:
        return getattr(files, method)(*given, **named)
    request = asyncio.run_coroutine_threadsafe(getattr(files, f"_{method}")(*given, **named), files.loop)
    try:
        while not stop.is_set():
            if futures.wait([request], LOOK).done:
                return request.result()
        raise Cancelled
    finally:
        request.cancel()  # without effect where it is done; Ctrl-C leaves the wait above too


def _stored(name: str, entry: dict[str, Any]) -> Stored:
    marks = ("ETag", "etag", "oid", "blob_id", "LastModified", "last_modified", "updated", "mtime")
    version = next((str(entry[mark]) for mark in marks if entry.get(mark)), "")
    return Stored(name, int(entry["size"] or 0), f"{entry['size']} {version}")
