"""Reads of files in compiled loops."""

import ctypes
import mmap
import os
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from shards.common.compiled.pread import read_at, read_cached, read_each, will_read

DATA = bytes(range(256)) * 8


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "data").write_bytes(DATA)
    descriptor = os.open(tmp_path / "data", os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def test_ranges_of_open_files_come_to_their_places_and_nothing_else_is_touched(file: int) -> None:
    buffer = np.full(100, 7, np.uint8)
    files, offset = np.array([file, -1, file], np.intc), np.array([250, 0, 2000])
    size, start = np.array([20, 10, 48]), np.array([50, 40, 0])
    assert read_each(files, offset, size, np.full(3, -1), buffer, start).tolist() == [True, False, True]
    assert bytes(buffer[50:70]) == DATA[250:270]
    assert bytes(buffer[:48]) == DATA[2000:2048]
    assert set(buffer[48:50].tolist() + buffer[70:].tolist()) == {7}


def test_a_range_of_another_checksum_is_not_there(file: int) -> None:
    files, offset, size, start = np.full(3, file, np.intc), np.array([0, 9, 9]), np.full(3, 80), np.arange(3) * 80
    crc = np.array([zlib.crc32(DATA[:80]), zlib.crc32(DATA[:80]), -1])
    assert read_each(files, offset, size, crc, np.zeros(240, np.uint8), start).tolist() == [True, False, True]


@pytest.mark.parametrize("read", [read_at, read_cached])
@pytest.mark.parametrize(("descriptor", "offset"), [(None, len(DATA) - 9), (None, len(DATA) + 5), (10**6, 0)])
def test_a_read_that_ends_early_or_fails_is_not_done(
    file: int, read: Callable[..., bool], descriptor: int | None, offset: int
) -> None:
    room = np.zeros(10, np.uint8)
    assert not read(file if descriptor is None else descriptor, room.ctypes.data, 10, offset)


def cached(file: int, size: int) -> bool:
    """Whether the page cache has the first `size` bytes of a file."""
    pages = np.zeros(-(-size // mmap.PAGESIZE), np.uint8)
    with mmap.mmap(file, size, prot=mmap.PROT_READ | mmap.PROT_WRITE, flags=mmap.MAP_PRIVATE) as view:
        start = ctypes.addressof(ctypes.c_char.from_buffer(view))
        assert not ctypes.CDLL(None).mincore(*map(ctypes.c_void_p, (start, size, pages.ctypes.data)))
    return bool((pages & 1).all())


def test_bytes_that_are_asked_for_come_into_the_page_cache_and_are_then_read_at_once(tmp_path: Path) -> None:
    data = bytes(range(256)) * 1024
    (tmp_path / "data").write_bytes(data)
    file, room = os.open(tmp_path / "data", os.O_RDONLY), np.zeros(len(data), np.uint8)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)  # as shards are opened
    os.fdatasync(file)  # conftest.py makes `fsync` do nothing
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    if cached(file, len(data)):
        pytest.skip("this file system keeps files in memory")
    will_read(file, 0, len(data))
    deadline = time.monotonic() + 60
    while not cached(file, len(data)):
        assert time.monotonic() < deadline, "nothing was asked for"
        time.sleep(0.001)
    assert read_cached(file, room.ctypes.data, len(data), 0)
    assert room.tobytes() == data
    os.close(file)
