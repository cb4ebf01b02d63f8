"""Keeps two jobs from working on the same shards, by a lock that ends with the process that holds it.

The lock is the kernel's (POSIX byte ranges on OUT/.work/lock), so nothing has to be cleaned up after a killed job.
Each slice of a job locks its own range of bytes and a whole job locks all: slices run side by side, but nothing
that overlaps does, not even slices of different counts. On NFS the server keeps the lock and machines exclude each
other; after the crash of a machine it frees the lock when the lease ends (about 90 s with NFSv4). A file system
without locks (Lustre mounted without `-o flock`) gets a warning, and care is left to the user.
"""

import contextlib
import errno
import fcntl
import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

from preprocess.job.slices import WHOLE, Slice
from shards.common.errors import ShardfeedError

LOCK = "lock"
# Bytes that stand for the whole job. Nothing is written there; only the ranges matter.
SPAN = 1 << 40
# type, whence, start, length, process id of `struct flock` on 64-bit Linux.
FLOCK = struct.Struct("hhqqi4x")
HELD = frozenset({errno.EACCES, errno.EAGAIN})
NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL})


@contextlib.contextmanager
def locked(work: Path, part: Slice = WHOLE) -> Iterator[None]:
    """Holds the lock of `part` of the job whose work directory is `work`, which is made where it is missing.

    Raises ShardfeedError where another process holds any of it. What was made for a job that came to nothing, because
    it was refused before it wrote its plan, is removed again.
    """
    made = not work.parent.exists()
    descriptor = _acquire(work, part)
    try:
        yield
    finally:
        if [path.name for path in _entries(work)] == [LOCK] and _lock(descriptor, 0, SPAN):
            # With every slice locked nobody else is at work, and whoever opened the file before will look again.
            with contextlib.suppress(OSError):
                (work / LOCK).unlink()
                work.rmdir()
                if made:
                    work.parent.rmdir()
        os.close(descriptor)


def _acquire(work: Path, part: Slice) -> int:
    path = work / LOCK
    start, end = part.span(SPAN)
    while True:
        work.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:
            continue  # another job ended and removed the directory in between
        if not _lock(descriptor, start, end):
            holder = _holder(descriptor, start, end)
            os.close(descriptor)
            what = work.parent if part == WHOLE else f"slice {part} of {work.parent}, or on what overlaps it"
            raise ShardfeedError(f"another job is at work on {what}{holder}: wait for it, or stop it")
        if _is_at(descriptor, path):
            return descriptor
        os.close(descriptor)


def _lock(descriptor: int, start: int, end: int) -> bool:
    """Locks a range if nobody holds any of it, and says whether it did; where there are no locks, that it did."""
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, end - start, start)
    except OSError as error:
        if error.errno in HELD:
            return False
        if error.errno not in NO_LOCKS:
            raise
        print(f"this file system has no locks ({error.strerror}): see to it that no other job runs", file=sys.stderr)
    return True


def _holder(descriptor: int, start: int, end: int) -> str:
    """Names the process in the way, where the kernel can tell."""
    asked = FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, end - start, 0)
    try:
        kind, _, _, _, process = FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
    except (OSError, struct.error):
        return ""
    return f" (process {process})" if kind != fcntl.F_UNLCK and process > 0 else ""


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the open file is still the one of that name: a job that ended may have removed it in between."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _entries(directory: Path) -> Iterator[Path]:
    with contextlib.suppress(FileNotFoundError):
        yield from directory.iterdir()
