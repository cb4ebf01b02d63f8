"""Reads of files in compiled loops."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from shards.common.pread import read_at, read_each, will_read

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
    assert read_each(files, offset, size, buffer, start).tolist() == [True, False, True]
    assert bytes(buffer[50:70]) == DATA[250:270]
    assert bytes(buffer[:48]) == DATA[2000:2048]
    assert set(buffer[48:50].tolist() + buffer[70:].tolist()) == {7}


@pytest.mark.parametrize(("descriptor", "offset"), [(None, len(DATA) - 9), (None, len(DATA) + 5), (10**6, 0)])
def test_a_read_that_ends_early_or_fails_is_not_done(file: int, descriptor: int | None, offset: int) -> None:
    assert not read_at(file if descriptor is None else descriptor, np.zeros(10, np.uint8), offset)


def test_a_hint_for_what_is_no_file_is_none(file: int) -> None:
    will_read(np.array([file, -1, 10**6], np.intc), np.array([0, 0, 10**9]), np.array([10, 10, 10]))
    assert read_at(file, np.zeros(10, np.uint8), 0)
