"""The checksum of compiled loops is zlib's."""

import os
import platform
import subprocess
import sys
import zlib

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shards.common.compiled.crc import crc32

# Around the blocks of 64 bytes that are folded, those of 16 that are summed by tables, and the bytes one by one.
SIZES = [0, 1, 15, 16, 17, 63, 64, 65, 127, 128, 192, 1000, 28_013]


def of(data: bytes, first: int) -> int:
    """The checksum of `data`, which lies behind `first` other bytes."""
    return int(crc32(np.frombuffer(bytes(first) + data + b"behind", np.uint8), first, len(data)))


@given(st.binary(max_size=300), st.integers(0, 20))
@example(b"\xff" * 128, 3)
@example(bytes(64), 0)
def test_it_is_zlibs(data: bytes, first: int) -> None:
    assert of(data, first) == zlib.crc32(data)


def sums() -> list[int]:
    """By which bits the checksums of bytes of each size differ from zlib's."""
    data = np.random.default_rng(0).integers(0, 256, max(SIZES), np.uint8).tobytes()
    return [of(data[:size], 5) ^ zlib.crc32(data[:size]) for size in SIZES]


def test_every_size_is_summed_whole() -> None:
    assert sums() == [0] * len(SIZES)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the name of a processor of another kind")
def test_a_processor_that_cannot_multiply_without_carries_sums_by_tables() -> None:
    found = subprocess.run(
        [sys.executable, "-c", f"from {__name__} import sums; print(sums())"],
        env={**os.environ, "NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == str([0] * len(SIZES))
