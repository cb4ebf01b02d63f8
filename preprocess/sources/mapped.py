"""Reading memory-mapped files at random: through the file, and not through the mapping.

What is touched in a mapping counts as this process's memory until the kernel needs it elsewhere: over a hundred
gigabytes that looks like a leak, and job systems that count it kill the worker. The kernel reads around each page that
is missing, 128 KB or, on some systems, 8 MB for one image of 110 KB. And a file that was cut short, or a disk that
fails, is a signal that ends the process. `pread` has none of this, and costs less than the page faults.
"""

import bisect
import ctypes
import errno
import functools
import mmap
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_MAPS = Path("/proc/self/maps")
# address range, read-only and shared or private, then offset in the file, device, inode and the file
_LINE = re.compile(r"([0-9a-f]+)-([0-9a-f]+) r--[sp] ([0-9a-f]+) \S+ (\d+) +(\S.*)")
# Files kept open: of a data set of hundreds of files those in use, far from what a process is allowed.
OPEN = 128


@dataclass(frozen=True)
class Mapping:
    """A part of a file that is mapped, to be read only: addresses from `start` to `end`, `offset` in the file."""

    start: int
    end: int
    offset: int
    inode: int
    path: str

    def read(self, address: int, size: int) -> bytes:
        """Copies [address, address + size) out of the file. Raises OSError where the disk fails or the file is cut."""
        try:
            file = _opened(self.path, self.inode)
        except OSError:  # renamed or removed since, which a mapping survives
            return ctypes.string_at(address, size)
        data = os.pread(file.descriptor, size, address - self.start + self.offset)
        if len(data) < size:
            raise OSError(errno.EIO, "the file has been cut short", self.path)
        return data


def mappings(ending: str) -> list[Mapping]:
    """The read-only mappings of files whose names end so, by address; none on systems without /proc."""
    if not _MAPS.exists():
        return []
    lines = map(_LINE.fullmatch, _MAPS.read_text().splitlines())
    return [
        Mapping(int(line[1], 16), int(line[2], 16), int(line[3], 16), int(line[4]), line[5])
        for line in lines
        if line and line[5].endswith(ending)
    ]


def mapping_of(address: int, size: int, among: list[Mapping]) -> Mapping | None:
    """The mapping that holds all of [address, address + size), if there is one."""
    place = bisect.bisect_right(among, address, key=lambda mapping: mapping.start) - 1
    return among[place] if place >= 0 and address + size <= among[place].end else None


def read_at_random(ending: str) -> None:
    """Tells the kernel not to read around what is touched in files whose names end so."""
    _advise(ending, mmap.MADV_RANDOM)


def release(ending: str) -> None:
    """Drops the pages of such files. Nothing is lost: they stay in the page cache, and cannot have been changed."""
    _advise(ending, mmap.MADV_DONTNEED)


def _advise(ending: str, advice: int) -> None:
    # Looked up anew each time: where a file was mapped some time ago there may be something else by now.
    for mapping in mappings(ending):
        _madvise()(mapping.start, mapping.end - mapping.start, advice)


class _OpenFile:
    """A file open for reading at random, until nobody holds it any more. Raises OSError where it is another one."""

    def __init__(self, path: str, inode: int) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        if os.fstat(self.descriptor).st_ino != inode:
            raise OSError(errno.ESTALE, "another file has taken its place", path)
        os.posix_fadvise(self.descriptor, 0, 0, os.POSIX_FADV_RANDOM)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


@functools.lru_cache(maxsize=OPEN)
def _opened(path: str, inode: int) -> _OpenFile:
    return _OpenFile(path, inode)


@functools.cache
def _madvise() -> Callable[[int, int, int], int]:
    function = ctypes.CDLL(None).madvise
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return function
