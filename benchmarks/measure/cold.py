"""Empties the page cache of files, so that the next reading comes from the disk."""

import contextlib
import ctypes
import mmap
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from shards.common.errors import ShardfeedError

# Smaller mappings are of the system's own files, which every process maps.
SMALLEST = 2**20
# The part of the bytes that may stay in memory: pages that are being written or read at that moment.
LEFT = 0.02

_libc = ctypes.CDLL(None, use_errno=True)


def forget(paths: Iterable[Path]) -> None:
    """Drops these files from the page cache, and every file that this process has mapped for reading.

    Pages that a process has mapped are not dropped, so they are let go of first; they come back when they are read.
    Raises ShardfeedError where more than 2% of the bytes stay, as on a file system in memory.
    """
    mapped = _let_go()
    kept = total = 0
    for path in {*paths, *mapped}:
        with contextlib.suppress(OSError), path.open("rb") as file:
            os.fsync(file.fileno())  # pages that are not written yet are not dropped
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            if size := os.fstat(file.fileno()).st_size:
                kept, total = kept + _resident(file.fileno(), size), total + size
    if kept > LEFT * total:
        raise ShardfeedError(f"{kept:,} of {total:,} bytes stay in memory: put --work and the data on a disk")


def _let_go() -> list[Path]:
    """Takes the pages of shared read-only mappings from this process; returns the files."""
    files = set()
    for line in Path("/proc/self/maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        if fields[1] == "r--s" and len(fields) == 6 and fields[5].startswith("/") and not fields[5].startswith("/dev/"):
            start, end = (int(each, 16) for each in fields[0].split("-"))
            if end - start < SMALLEST:
                continue
            _libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), mmap.MADV_DONTNEED)
            files.add(Path(fields[5]))
    return sorted(files)


def _resident(descriptor: int, size: int) -> int:
    """Bytes of a file that are in the page cache."""
    found = np.zeros(-(-size // mmap.PAGESIZE), np.uint8)
    with mmap.mmap(descriptor, size, prot=mmap.PROT_READ | mmap.PROT_WRITE, flags=mmap.MAP_PRIVATE) as view:
        start = ctypes.addressof(ctypes.c_char.from_buffer(view))
        failed = _libc.mincore(ctypes.c_void_p(start), ctypes.c_size_t(size), ctypes.c_void_p(found.ctypes.data))
    return size if failed else mmap.PAGESIZE * int((found & 1).sum())
