"""Reads of files inside compiled loops: for many small samples a call from Python costs more than the read itself.

A loop that finds a read wrong only says so. Whoever called it reads that sample again with `os.preadv`, which retries
interrupted calls and gives the error in words.
"""

import os
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from numba import types

UInt8Array = npt.NDArray[np.uint8]
Int64Array = npt.NDArray[np.int64]
IntArray = npt.NDArray[np.intc]

# Functions of the C library, which every Python process has loaded; `off_t` has 64 bits wherever DALI runs.
_pread: Any = types.ExternalFunction("pread", types.intp(types.intc, types.uintp, types.uintp, types.int64))
_fadvise: Any = types.ExternalFunction("posix_fadvise", types.intc(types.intc, types.int64, types.int64, types.intc))
_WILL_NEED = os.POSIX_FADV_WILLNEED


@numba.njit(nogil=True, cache=True)
def read_at(file: int, target: UInt8Array, offset: int) -> bool:
    """Fills `target`, contiguous, with the bytes of an open file from `offset` on. False if they did not all come."""
    done = 0
    while done < target.size:
        count = _pread(np.intc(file), target[done:].ctypes.data, np.uintp(target.size - done), np.int64(offset + done))
        if count <= 0:
            return False
        done += count
    return True


@numba.njit(nogil=True, cache=True)
def will_read(files: IntArray, offset: Int64Array, size: Int64Array) -> None:
    """Asks the kernel to read these ranges of open files (n,) into the page cache; returns at once. -1 is no file."""
    for i in range(files.size):
        if files[i] >= 0:
            _fadvise(files[i], np.int64(offset[i]), np.int64(size[i]), np.intc(_WILL_NEED))


@numba.njit(nogil=True, cache=True)
def read_each(
    files: IntArray, offset: Int64Array, size: Int64Array, buffer: UInt8Array, start: Int64Array
) -> npt.NDArray[np.bool_]:
    """Reads ranges of open files (n,) into `buffer` from the bytes `start` (n,) on; returns which are there (n,)."""
    done = np.zeros(files.size, np.bool_)
    for i in range(files.size):
        if files[i] >= 0:
            done[i] = read_at(files[i], buffer[start[i] : start[i] + size[i]], offset[i])
    return done
