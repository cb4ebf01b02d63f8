"""Locks between processes. All end with the process that holds them, so a killed process leaves nothing to clean up.

`holding`: one lock file, waited for. `open_range`: a range of bytes of a lock file, so that parts of one job exclude
each other only where they overlap. `open_locked`: the lock is on the file that its holder writes to.

The ranges are POSIX locks: on NFS the server keeps them and machines exclude each other; when a machine crashes, the
server frees its locks after the lease (about 90 s with NFSv4). They exclude processes, not threads. A file system
without them (Lustre mounted without `-o flock`) gets a warning, and care is left to the user.
"""

import contextlib
import errno
import fcntl
import os
import struct
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from filelock import FileLock, Timeout

from shards.common.errors import Cancelled, ShardfeedError
from shards.common.terminal import cache_moves

# Seconds between two attempts to take a lock that another process holds.
POLL_S = 0.02
# type, whence, start, length and process id of `struct flock` on 64-bit Linux.
_FLOCK = struct.Struct("hhqqi4x")
_HELD = frozenset({errno.EACCES, errno.EAGAIN})
_UNSUPPORTED = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL})


class LockedElsewhere(Exception):
    """Another process holds the lock. `process`: its id, None where the kernel cannot tell (another machine)."""

    def __init__(self, process: int | None) -> None:
        super().__init__(f"locked by process {process}" if process else "locked by another process")
        self.process = process


@contextlib.contextmanager
def holding(path: Path, stop: threading.Event | None = None) -> Iterator[None]:
    """Holds the lock of the lock file `path`; waits while another process or thread holds it.

    Makes the file and its directory; the file stays. Raises Cancelled once `stop` is set while it waits, ShardfeedError
    where the file system has no locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # On a file system without locks, filelock's fallback (the file's existence) would survive a killed process.
    lock = FileLock(path, poll_interval=POLL_S, fallback_to_soft=False)
    try:
        lock.acquire(cancel_check=None if stop is None else stop.is_set)
    except Timeout:
        raise Cancelled from None
    except OSError as error:
        raise _no_locks(error, str(path.parent)) from None
    try:
        yield
    finally:
        lock.release()


def open_range(path: Path, start: int, end: int) -> int:
    """Opens the lock file `path` and locks its bytes from `start` to `end`, without waiting; makes what is missing.

    Returns a descriptor, which holds the lock until it is closed. Raises LockedElsewhere where another process holds
    any of these bytes. A holder may remove the file before it closes it: the lock is then taken on a new file.
    """
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:
            continue  # another process removed the directory in between
        if not lock_range(descriptor, start, end):
            process = _holder(descriptor, start, end)
            os.close(descriptor)
            raise LockedElsewhere(process)
        if _is_at(descriptor, path):
            return descriptor
        os.close(descriptor)


def open_locked(path: Path, patience_s: float = 0.0) -> IO[str]:
    """Opens a text file to append to, locked until it is closed; makes what is missing of it and its directory.

    Waits up to `patience_s` seconds for another process, then raises LockedElsewhere. Opening and closing the file
    elsewhere in the same process ends the lock, by the rules of POSIX.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a", encoding="utf-8")
    until = time.monotonic() + patience_s
    while not lock_range(file.fileno(), 0, 0):
        if time.monotonic() >= until:
            process = _holder(file.fileno(), 0, 0)
            file.close()
            raise LockedElsewhere(process)
        time.sleep(min(0.5, patience_s))
    return file


def lock_range(descriptor: int, start: int, end: int) -> bool:
    """Locks bytes of an open file if no other process holds any of them; returns whether it did.

    `start` and `end` 0: the whole file. True also where the file system has no locks.
    """
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, end - start, start)
    except OSError as error:
        if error.errno in _HELD:
            return False
        if error.errno not in _UNSUPPORTED:
            raise
        print(f"this file system has no locks ({error.strerror}): see to it that no other job runs", file=sys.stderr)
    return True


def lock_shared(descriptor: int, stop: threading.Event | None = None) -> None:
    """Takes a shared `flock` on an open file, which ends when the file is closed; waits for an exclusive one.

    Raises Cancelled once `stop` is set while it waits.
    """
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if stop is None:
                time.sleep(POLL_S)
            elif stop.wait(POLL_S):
                raise Cancelled from None
        except OSError as error:
            raise _no_locks(error, _path(descriptor)) from None


def try_exclusive(descriptor: int) -> bool:
    """Takes an exclusive `flock` on an open file if no other holder has one; returns whether it did."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise _no_locks(error, _path(descriptor)) from None
    return True


def _no_locks(error: OSError, place: str) -> Exception:
    """The line for a file system without `flock`; `error` itself where it says something else."""
    if error.errno not in _UNSUPPORTED:
        return error
    return ShardfeedError(
        f"the file system of {place} has no locks ({error.strerror}), which keep processes from using half a file: "
        f"choose a directory on a local disk ({cache_moves('a cache')})"
    )


def _path(descriptor: int) -> str:
    return str(Path(f"/proc/self/fd/{descriptor}").readlink())


def _holder(descriptor: int, start: int, end: int) -> int | None:
    """The process that holds some of these bytes, where the kernel can tell."""
    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, end - start, 0)
    try:
        kind, _, _, _, process = _FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
    except (OSError, struct.error):
        return None
    return int(process) if kind != fcntl.F_UNLCK and process > 0 else None


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
