"""Shards of remote data sets on this machine's disk: whole files, verified, limited in size, shared by processes.

    CACHE/CACHEDIR.TAG                      marks the directory as this program's cache (bford.info/cachedir)
    CACHE/lock                              held while files are added or removed, for milliseconds
    CACHE/count                             the bytes that the shards take
    CACHE/shards/<sha256>.tar               a whole shard
    CACHE/shards/<sha256>.<bytes>.part      a shard that is being downloaded
    CACHE/datasets/                         manifests and indices: shards/dataset/

A shard is named by its SHA-256, so data sets and runs share equal shards, and nothing here can be out of date. One
process downloads a partial file while it holds the kernel's lock on it, compares it with its hash, syncs and renames
it; every reader of a shard holds a shared lock on it. Locks end with their process, so a crash leaves only partial
files that no process holds. They are removed when a process first downloads something, or when room is needed; then
shards that no process holds are removed, least recently used first. Files of other names are neither counted nor
removed, and a directory that holds something else is refused. The directory must be on a local file system.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from shards.common.arguments import as_path, checked_class, whole_number
from shards.common.errors import Cancelled, ShardfeedError, UsageError
from shards.common.locks import holding, lock_shared, try_exclusive
from shards.common.terminal import cache_moves, some

# How often a shard is downloaded before its wrong bytes are taken for what the store holds.
WRONG_BYTES = 3
# The part of the cache that is freed at once where there is no room, if it holds shards small enough.
SPARE = 0.01

MARK = "CACHEDIR.TAG"
# The first line is fixed by the specification; backup programs look for it.
_MARK = b"Signature: 8a477f597d28d172789f06886806bc55\n# This directory is a cache of shardfeed and may be removed.\n"
# What a cache directory without a mark may hold, as earlier versions made it; preprocess keeps two of these.
_OWN = frozenset({MARK, "lock", "count", "shards", "datasets", "sources", "staging"})

_HASH = re.compile(r"[0-9a-f]{64}")
_SHARD = re.compile(r"[0-9a-f]{64}(?:\.tar|\.([0-9]{1,18})\.part)")
_COUNT = b"%020d"
# Directories of shards that this process has listed once.
_listed: set[Path] = set()

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kMGT]?)B?")
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def cache_home() -> Path:
    """The directory for files that can be fetched again: ~/.cache/shardfeed, or below XDG_CACHE_HOME."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "shardfeed"


def parse_size(text: str) -> int:
    """Bytes: "200GB", "1.5 TB", "500000". Raises UsageError for anything else, and for less than one byte."""
    match = _SIZE.fullmatch(text.strip())
    size = int(float(match[1]) * _UNITS[match[2]]) if match else 0
    if size < 1:
        raise UsageError(f"a size is given as 200GB, 1.5TB or a number of bytes, not {text!r}")
    return size


class BeingFetched(Exception):
    """Another process is downloading this shard."""


@dataclass(frozen=True)
class _Entry:
    path: Path
    bytes: int
    used: float
    """Time of the last use, in seconds."""


@checked_class
@dataclass(frozen=True)
class Cache:
    """A directory whose shards take at most `bytes`, for all processes that use it together.

    Where a method takes `stop`, setting that event ends its wait for a lock: it raises Cancelled.
    """

    directory: Path = field(default_factory=cache_home)
    bytes: int = 100 * 10**9

    def __post_init__(self) -> None:
        object.__setattr__(self, "directory", as_path("the directory of a cache", self.directory))
        object.__setattr__(self, "bytes", whole_number("the bytes of a cache", self.bytes, 1))

    def claim(self) -> None:
        """Marks the directory as a cache, and makes it if it is missing; nothing to do where it is marked.

        Raises UsageError where it holds files of others, OSError where it cannot be written.
        """
        mark = self.directory / MARK
        if mark.exists():
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        others = sorted(path.name for path in self.directory.iterdir() if path.name not in _OWN)
        if others:
            raise UsageError(
                f"{self.directory} is no cache: it holds {some(others, 3)}; give an empty or a new directory, "
                f"for example {self.directory / 'shardfeed'} ({cache_moves()})"
            )
        mark.write_bytes(_MARK)

    def pin(self, sha256: str, size: int, stop: threading.Event | None = None) -> int | None:
        """A descriptor of a cached shard, which keeps it in the cache until `os.close`; None where it is not cached."""
        path = self._path(sha256)
        try:
            file = _open(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            lock_shared(file, stop)
            status = os.fstat(file)
            if status.st_nlink and status.st_size == size:
                with contextlib.suppress(OSError):  # another user's file, which this one may only read
                    os.utime(file)
                return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)
        if status.st_nlink:  # another program has cut it off
            with contextlib.suppress(PermissionError), self._alone(stop):
                path.unlink(missing_ok=True)
        return None

    def fetch(
        self,
        sha256: str,
        size: int,
        download: Callable[[Path], object],
        name: str,
        stop: threading.Event | None = None,
        *,
        compare: bool = True,
    ) -> int | None:
        """Downloads a shard, verified, and returns a descriptor as `pin` does; None where there is no room for it.

        `download` writes the file to the path that it gets; `name` is for errors. Without `compare`, `sha256` is only
        the shard's name in the cache, and its length is compared alone. Raises BeingFetched where another
        process downloads the shard, ShardfeedError for a shard that arrives with another hash several times, and
        whatever `download` raises.
        """
        part = self._path(sha256).with_suffix(f".{size}.part")
        with self._alone(stop):
            file = self._begin(part, size)
        if file is None:
            return self.pin(sha256, size, stop)
        try:
            if compare:
                download_verified(file, part, sha256, download, name)
            else:
                download(part)
                _check_length(file, size, name)
            os.fsync(file)
            with self._alone(stop):
                part.rename(self._path(sha256))
                # No longer exclusive. The shard cannot be removed meanwhile: that takes the cache's lock.
                fcntl.flock(file, fcntl.LOCK_SH)
            return file
        except BaseException:
            with contextlib.suppress(Cancelled), self._alone(stop):  # if cancelled, the next download removes it
                part.unlink(missing_ok=True)
            os.close(file)
            raise

    def used(self) -> int:
        """Bytes that the shards take, those being downloaded included."""
        with self._alone():  # or a file that is renamed meanwhile may be seen under both names
            return sum(entry.bytes for entry in self._entries())

    def _path(self, sha256: str) -> Path:
        if not _HASH.fullmatch(sha256):
            raise ShardfeedError(f"{sha256!r} is not a SHA-256: it must be 64 hex digits")
        return self._shards / f"{sha256}.tar"

    @property
    def _shards(self) -> Path:
        return self.directory / "shards"

    @contextlib.contextmanager
    def _alone(self, stop: threading.Event | None = None) -> Iterator[None]:
        """Keeps other processes and threads from adding and removing files in the block, which takes milliseconds."""
        self.claim()
        self._shards.mkdir(exist_ok=True)
        with holding(self.directory / "lock", stop):
            yield

    def _begin(self, part: Path, size: int) -> int | None:
        """The partial file, locked, after making room; None without room, or if the shard has arrived meanwhile."""
        if part.with_name(f"{part.name.partition('.')[0]}.tar").exists():
            return None
        file = _open(part, os.O_RDWR | os.O_CREAT)
        if not try_exclusive(file):
            os.close(file)
            raise BeingFetched
        room = False
        try:
            room = self._make_room(size, part)
        finally:
            if not room:
                part.unlink(missing_ok=True)
                os.close(file)
        return file if room else None

    def _make_room(self, size: int, own: Path) -> bool:
        """Removes shards until `size` more bytes fit; returns whether they do.

        Lists the directory, of perhaps 100,000 shards, only where the counted bytes are too many, and once in each
        process. The count is never less than the shards take: what a crash or a failed download leaves counted, and
        what was removed by hand, is corrected at the next listing.
        """
        taken = self._counted() if self._shards in _listed else None
        if taken is not None and taken + size <= self.bytes:
            self._count(taken + size)
            return True
        _listed.add(self._shards)
        others = [entry for entry in self._entries() if entry.path != own]
        excess = sum(entry.bytes for entry in others) + size - self.bytes
        partial = [entry for entry in others if entry.path.suffix == ".part"]
        # What a crash left goes first, in any case.
        excess -= sum(entry.bytes for entry in partial if _remove_unused(entry.path))
        # Some more is removed, so that a full cache of many shards is not listed for each of them.
        spare = int(self.bytes * SPARE) if excess > 0 else 0
        for entry in sorted(others, key=lambda entry: entry.used):
            if excess <= 0 and excess - entry.bytes < -spare:
                break
            if entry.path.suffix != ".part" and _remove_unused(entry.path):
                excess -= entry.bytes
        self._count(excess + self.bytes)
        return excess <= 0

    def _counted(self) -> int | None:
        """The bytes taken, by the count; None where there is none."""
        try:
            return int((self.directory / "count").read_bytes())
        except (FileNotFoundError, ValueError):
            return None

    def _count(self, taken: int) -> None:
        (self.directory / "count").write_bytes(_COUNT % taken)

    def _entries(self) -> list[_Entry]:
        entries = []
        with contextlib.suppress(FileNotFoundError):
            for file in os.scandir(self._shards):
                name = _SHARD.fullmatch(file.name)
                if name is None or not file.is_file(follow_symlinks=False):
                    continue
                with contextlib.suppress(FileNotFoundError):  # renamed or removed since
                    status = file.stat(follow_symlinks=False)
                    # A partial file counts as what it will be.
                    size = status.st_size if name[1] is None else int(name[1])
                    entries.append(_Entry(Path(file.path), size, status.st_mtime))
        return entries


def _open(path: Path, flags: int) -> int:
    """Opens a shard or a partial file. Raises ShardfeedError where something else has its name.

    Through a link that somebody has put there, a download would overwrite a file elsewhere.
    """
    try:
        file = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EISDIR):
            raise
    else:
        if stat.S_ISREG(os.fstat(file).st_mode):
            return file
        os.close(file)
    raise ShardfeedError(f"{path} is in the cache and no file, which another program must have put there: remove it")


def download_verified(file: int, path: Path, sha256: str, download: Callable[[Path], object], name: str) -> None:
    """Downloads a shard to `path`, which is also open as `file`, until it has the hash `sha256`.

    Raises ShardfeedError, which calls it `name`, after WRONG_BYTES attempts, and whatever `download` raises.
    """
    for _ in range(WRONG_BYTES):
        download(path)
        found = _sha256(file)
        if found == sha256:
            return
    raise ShardfeedError(
        f"{name} arrives with other bytes than its manifest says (SHA-256 {found[:8]}, manifest {sha256[:8]}; "
        f"{WRONG_BYTES} attempts): it is damaged there, upload it again"
    )


def _check_length(file: int, size: int, name: str) -> None:
    actual = os.fstat(file).st_size
    if actual != size:
        raise ShardfeedError(
            f"{name} has {actual:,} bytes, its index says {size:,}: it has changed, run `python -m shards index` again"
        )


def _remove_unused(path: Path) -> bool:
    """Removes a file that no process has locked; returns whether it did."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)  # NFS locks only files that are open for writing
    except FileNotFoundError:
        return True
    except PermissionError:  # another user's
        return False
    try:
        if try_exclusive(file):
            path.unlink(missing_ok=True)
            return True
        return False
    finally:
        os.close(file)


def _sha256(file: int) -> str:
    os.lseek(file, 0, os.SEEK_SET)
    with os.fdopen(os.dup(file), "rb") as reader:
        return hashlib.file_digest(reader, "sha256").hexdigest()
