"""Reads of files inside compiled loops: for many small samples a call from Python costs more than the read itself.

A loop that finds a read wrong only says so. Whoever called it reads that sample again with `os.preadv`, which retries
interrupted calls and gives the error in words.

Where bytes go is an address, of memory that the caller keeps: a view of an array costs numba atomic instructions.
"""

import os
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from numba import types

from shards.common.compiled.crc import crc32

UInt8Array = npt.NDArray[np.uint8]
Int64Array = npt.NDArray[np.int64]
IntArray = npt.NDArray[np.intc]

# Functions of the C library, which every Python process has loaded; `off_t` has 64 bits wherever DALI runs.
_pread: Any = types.ExternalFunction("pread", types.intp(types.intc, types.uintp, types.uintp, types.int64))
_preadv2: Any = types.ExternalFunction(
    "preadv2", types.intp(types.intc, types.uintp, types.intc, types.int64, types.intc)
)
_fadvise: Any = types.ExternalFunction("posix_fadvise", types.intc(types.intc, types.int64, types.int64, types.intc))
_WILL_NEED, _NO_WAIT = os.POSIX_FADV_WILLNEED, os.RWF_NOWAIT


@numba.njit(nogil=True, cache=True)
def read_at(file: int, address: int, size: int, offset: int) -> bool:
    """Reads `size` bytes of an open file from `offset` on to memory at `address`. False if they did not all come."""
    done = 0
    while done < size:
        count = _pread(np.intc(file), np.uintp(address + done), np.uintp(size - done), np.int64(offset + done))
        if count <= 0:
            return False
        done += count
    return True


@numba.njit(nogil=True, cache=True)
def read_cached(file: int, address: int, size: int, offset: int) -> bool:
    """As `read_at` where the page cache has all these bytes; otherwise False, at once.

    False also where the file or its file system cannot say what is in the cache.
    """
    vector = np.empty(2, np.uint64)  # an `iovec`: address and length
    vector[0], vector[1] = address, size
    count = _preadv2(np.intc(file), np.uintp(vector.ctypes.data), np.intc(1), np.int64(offset), np.intc(_NO_WAIT))
    return bool(count == size)


@numba.njit(nogil=True, cache=True)
def will_read(file: int, offset: int, size: int) -> None:
    """Asks the kernel to read these bytes of an open file into the page cache; returns at once."""
    _fadvise(np.intc(file), np.int64(offset), np.int64(size), np.intc(_WILL_NEED))


@numba.njit(nogil=True, cache=True)
def read_each(
    files: IntArray, offset: Int64Array, size: Int64Array, crc: Int64Array, buffer: UInt8Array, start: Int64Array
) -> npt.NDArray[np.bool_]:
    """Reads ranges of open files (n,) into `buffer` from the bytes `start` (n,) on; returns which are there (n,).

    `crc` (n,): the CRC-32 that each must have to count; a negative one is not compared.
    """
    done = np.zeros(files.size, np.bool_)
    for i in range(files.size):
        if files[i] >= 0 and read_at(files[i], buffer.ctypes.data + start[i], size[i], offset[i]):
            done[i] = crc[i] < 0 or crc32(buffer, start[i], size[i]) == crc[i]
    return done
