"""The page cache is emptied of files, also of those that this process has mapped."""

import mmap
from pathlib import Path

import numpy as np
import pytest

from benchmarks.measure import cold
from benchmarks.measure.cold import forget
from shards.common.errors import ShardfeedError


def _resident(path: Path) -> int:
    with path.open("rb") as file:
        return cold._resident(file.fileno(), path.stat().st_size)


def test_files_leave_the_page_cache_and_can_be_read_again(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 4096)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as view:
        assert int(np.frombuffer(view, np.uint8).sum()) > 0
        assert _resident(path) == path.stat().st_size
        try:
            forget([path])
        except ShardfeedError:
            pytest.skip("this file system keeps files in memory")
        assert _resident(path) == 0
        assert view[-1] == 255


def test_files_that_stay_in_memory_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(10_000))
    monkeypatch.setattr(cold, "_resident", lambda descriptor, size: size)
    with pytest.raises(ShardfeedError, match="bytes stay in memory"):
        forget([path])
