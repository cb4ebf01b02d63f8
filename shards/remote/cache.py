"""Shards of remote data sets on this machine's disk: whole files, verified, bounded in size, shared by processes.

A shard's name is its SHA-256, so two data sets, or two runs, share what is the same, and nothing in here can be out of
date. A file is written as `<sha256>.<bytes>.part` by one process, which holds the kernel's lock on it, compared with
its hash, synced and renamed; whoever reads it holds a shared lock. Locks end with their process: after a crash there
is nothing to clean up but partial files that nobody holds, which go when a process first downloads something, or when
room is needed. Then whatever nobody holds is removed, least recently used first. The directory must be on a local file
system.
"""

import contextlib
import fcntl
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from shards.common.errors import ShardfeedError, UsageError

# How often a file that arrives with other bytes than it should is fetched before that is taken for the truth.
WRONG_BYTES = 3
# The part of the cache that is freed at once where there is no room, if it holds shards small enough.
SPARE = 0.01

_COUNT = b"%020d"
# Directories of caches whose files this process has looked at.
_looked_at: set[Path] = set()

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kMGT]?)B?")
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def cache_home() -> Path:
    """Where things that can be fetched again are kept: ~/.cache/shardfeed, or as XDG_CACHE_HOME says."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "shardfeed"


def parse_size(text: str) -> int:
    """Bytes: "200GB", "1.5 TB", "500000". Raises UsageError for anything else, and for nothing at all."""
    match = _SIZE.fullmatch(text.strip())
    size = int(float(match[1]) * _UNITS[match[2]]) if match else 0
    if size < 1:
        raise UsageError(f"a size is given as 200GB, 1.5TB or a number of bytes, not {text!r}")
    return size


class BeingFetched(Exception):
    """Another process fetches this shard at the moment."""


@dataclass(frozen=True)
class _Entry:
    path: Path
    bytes: int
    used: float
    """Time of the last use, in seconds."""


@dataclass(frozen=True)
class Cache:
    """A directory of shards that takes at most `bytes`, all processes that use it together."""

    directory: Path = field(default_factory=cache_home)
    bytes: int = 100 * 10**9

    def pin(self, sha256: str, size: int) -> int | None:
        """A file descriptor of a cached shard; None where it is not here. It stays until the descriptor is closed.

        To be closed by `os.close`, which lets go of it.
        """
        path = self._path(sha256)
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        fcntl.flock(file, fcntl.LOCK_SH)
        status = os.fstat(file)
        if status.st_nlink and status.st_size == size:
            with contextlib.suppress(OSError):  # somebody else's file, which we may read
                os.utime(file)
            return file
        os.close(file)
        if status.st_nlink:  # cut off by something else than this program
            with self._alone():
                path.unlink(missing_ok=True)
        return None

    def fetch(self, sha256: str, size: int, download: Callable[[Path], object], name: str) -> int | None:
        """Downloads a shard, verified, and returns a descriptor as `pin` does; None where there is no room for it.

        `download` writes the file to the path that it is given; `name` is for errors. Raises BeingFetched where another
        process is at it, ShardfeedError for a shard that arrives with other bytes than `sha256` says several times, and
        whatever `download` raises.
        """
        part = self._path(sha256).with_suffix(f".{size}.part")
        with self._alone() as count:
            file = self._begin(part, size, count)
        if file is None:
            return self.pin(sha256, size)
        try:
            download_verified(file, part, sha256, download, name)
            os.fsync(file)
            with self._alone():
                part.rename(self._path(sha256))
                # No longer ours alone; nobody removes it meanwhile, since that is done under the lock held here.
                fcntl.flock(file, fcntl.LOCK_SH)
            return file
        except BaseException:
            with self._alone():
                part.unlink(missing_ok=True)
                os.close(file)
            raise

    def used(self) -> int:
        """Bytes that the shards take, those being fetched included."""
        with self._alone():  # or a file that is renamed meanwhile may be seen under both names
            return sum(entry.bytes for entry in self._entries())

    def _path(self, sha256: str) -> Path:
        return self._shards / f"{sha256}.tar"

    @property
    def _shards(self) -> Path:
        return self.directory / "shards"

    @contextlib.contextmanager
    def _alone(self) -> Iterator[int]:
        """Keeps other processes and threads from adding and removing files meanwhile: for milliseconds.

        Yields a descriptor of the lock's file, in which the bytes taken are counted.
        """
        self._shards.mkdir(parents=True, exist_ok=True)
        with holding(self.directory / "lock") as file:
            yield file

    def _begin(self, part: Path, size: int, count: int) -> int | None:
        """The partial file, locked, after making room; None if there is none, or the shard has arrived meanwhile."""
        if part.with_name(f"{part.name.partition('.')[0]}.tar").exists():
            return None
        file = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        if not _locked(file):
            os.close(file)
            raise BeingFetched
        room = False
        try:
            room = self._make_room(size, part, count)
        finally:
            if not room:
                part.unlink(missing_ok=True)
                os.close(file)
        return file if room else None

    def _make_room(self, size: int, own: Path, count: int) -> bool:
        """Looks at the files only where they may be too many, and once in each process: there may be 100,000.

        What is counted is never less than they take. What a crash or a failed download leaves counted, and what
        somebody removed by hand, is seen at the next look.
        """
        taken = _counted(count) if self._shards in _looked_at else None
        if taken is not None and taken + size <= self.bytes:
            os.pwrite(count, _COUNT % (taken + size), 0)
            return True
        _looked_at.add(self._shards)
        others = [entry for entry in self._entries() if entry.path != own]
        excess = sum(entry.bytes for entry in others) + size - self.bytes
        partial = [entry for entry in others if entry.path.suffix == ".part"]
        # What a crash left goes first, in any case.
        excess -= sum(entry.bytes for entry in partial if _remove_unused(entry.path))
        # A little more than need be goes, so that a full cache of many shards is not looked through for each of them.
        spare = int(self.bytes * SPARE) if excess > 0 else 0
        for entry in sorted(others, key=lambda entry: entry.used):
            if excess <= 0 and excess - entry.bytes < -spare:
                break
            if entry.path.suffix != ".part" and _remove_unused(entry.path):
                excess -= entry.bytes
        os.pwrite(count, _COUNT % (excess + self.bytes), 0)
        return excess <= 0

    def _entries(self) -> list[_Entry]:
        entries = []
        with contextlib.suppress(FileNotFoundError):
            for file in os.scandir(self._shards):
                with contextlib.suppress(FileNotFoundError):  # renamed or removed since
                    status = file.stat()
                    # A partial file counts as what it will be.
                    parts = file.name.split(".")
                    size = int(parts[1]) if parts[-1] == "part" else status.st_size
                    entries.append(_Entry(Path(file.path), size, status.st_mtime))
        return entries


def download_verified(file: int, path: Path, sha256: str, download: Callable[[Path], object], name: str) -> None:
    """Downloads a shard to `path`, which is also open as `file`, until it has the hash that it should have.

    Raises ShardfeedError, which calls it `name`, where it never has, and whatever `download` raises.
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


@contextlib.contextmanager
def holding(path: Path) -> Iterator[int]:
    """Holds the lock that the file `path` stands for, after waiting for whoever has it; the file stays.

    Yields a descriptor of it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file
    finally:
        os.close(file)


def _counted(file: int) -> int | None:
    """The bytes taken, as they were counted; None where nobody has yet."""
    try:
        return int(os.pread(file, 32, 0))
    except ValueError:
        return None


def _remove_unused(path: Path) -> bool:
    """Removes a file that no process has locked; whether it did."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)  # NFS locks what is open for writing alone
    except FileNotFoundError:
        return True
    except PermissionError:  # another user's
        return False
    try:
        if _locked(file):
            path.unlink(missing_ok=True)
            return True
        return False
    finally:
        os.close(file)


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sha256(file: int) -> str:
    os.lseek(file, 0, os.SEEK_SET)
    with os.fdopen(os.dup(file), "rb") as reader:
        return hashlib.file_digest(reader, "sha256").hexdigest()
