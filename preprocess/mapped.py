"""Reading memory-mapped files at random: no more from the disk than is asked for, and no more memory than needed.

Left to itself the kernel reads around each page that is missing, 128 KB or, on some systems, 8 MB for one image of
110 KB. And every page read through a mapping counts as this process's memory until the kernel needs it elsewhere:
over a hundred gigabytes that looks like a leak, and job systems that count it kill the worker.
"""

import ctypes
import functools
import mmap
import re
from collections.abc import Callable
from pathlib import Path

_MAPS = Path("/proc/self/maps")
# address range, read-only and shared or private, then offset, device, inode and the file
_LINE = re.compile(r"([0-9a-f]+)-([0-9a-f]+) r--[sp] \S+ \S+ \S+ +(\S.*)")


def read_at_random(ending: str) -> None:
    """Tells the kernel not to read around what is asked for in mapped files whose names end with `ending`."""
    _advise(ending, mmap.MADV_RANDOM)


def release(ending: str) -> int:
    """Drops the pages of all read-only mappings of files whose names end with `ending`; returns their bytes.

    Nothing can be lost: what is mapped so cannot have been changed. The pages stay in the page cache; reading them
    again costs a page fault.
    """
    return _advise(ending, mmap.MADV_DONTNEED)


def announce(address: int, size: int) -> None:
    """Has the kernel read [address, address + size) in one go, and not page by page as they are touched."""
    start = address // mmap.PAGESIZE * mmap.PAGESIZE
    _madvise()(start, address + size - start, mmap.MADV_WILLNEED)


def _advise(ending: str, advice: int) -> int:
    """Gives an advice for all read-only mappings of some files; their bytes. Does nothing on systems without /proc."""
    if not _MAPS.exists():
        return 0
    advised = 0
    for line in _MAPS.read_text().splitlines():
        found = _LINE.fullmatch(line)
        if found and found[3].endswith(ending):
            start, end = int(found[1], 16), int(found[2], 16)
            if _madvise()(start, end - start, advice) == 0:
                advised += end - start
    return advised


@functools.cache
def _madvise() -> Callable[[int, int, int], int]:
    function = ctypes.CDLL(None).madvise
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return function
