"""The limits of a machine: what is read, dropped and counted, not how fast."""

import math
import os
from pathlib import Path

import pytest

from benchmarks.ladder.limits import (
    Ceiling,
    Limit,
    cached_share,
    disk,
    drop_pages,
    jpeg_decode,
    jpegs,
    memory_copy,
    pcie,
)
from benchmarks.measure.harness import Schedule
from shards.common.errors import ShardfeedError
from shards.dataset import Split
from tests.conftest import write_split


def test_dropping_pages_empties_the_cache_of_these_files_alone(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("dropped", "kept")]
    for path in files:
        with path.open("wb") as file:
            file.write(bytes(1 << 20))
            file.flush()
            os.fsync(file.fileno())
        path.read_bytes()
    if cached_share(files) != 1.0:
        pytest.skip("this file system does not tell what is cached")
    drop_pages(files[:1])
    share = cached_share(files[:1])
    if share == 1.0:
        pytest.skip("this file system keeps its pages (it lives in memory)")
    assert share is not None
    assert share < 0.1  # a look makes the kernel fetch the page, and a fast disk may have it at once
    assert cached_share(files[1:]) == 1.0


@pytest.mark.parametrize("cold", [True, False])
@pytest.mark.parametrize("order", ["sequence", "random"])
def test_reading_is_counted_in_bytes_and_images_of_this_data_set(cold: bool, order: str, small_split: Split) -> None:
    limit = disk(small_split, 0.02, cold=cold, order=order)
    an_image = small_split.index.size.mean() if order == "random" else small_split.info.bytes / len(small_split)
    assert limit.images_per_s > 0
    assert math.isclose(limit.bytes_per_s / limit.images_per_s, an_image)


def test_samples_are_taken_from_all_over_the_split(small_split: Split) -> None:
    assert len(jpegs(small_split, 5)) == 5
    assert len(jpegs(small_split)) == len(small_split)
    assert all(data.startswith(b"\xff\xd8") and data.endswith(b"\xff\xd9") for data in jpegs(small_split))


def test_bare_decoding_runs_in_processes(small_split: Split) -> None:
    limit = jpeg_decode(small_split, 2, 0.05)
    assert math.isclose(limit.bytes_per_s / limit.images_per_s, small_split.index.size.mean())


def test_images_that_cannot_be_decoded_are_an_error(tmp_path: Path, small_split: Split) -> None:
    split = write_split(tmp_path, jpegs(small_split, 3), short_side=None)
    for path in split.shard_paths:
        path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(ShardfeedError, match="no image"):
        jpeg_decode(split, 1, 0.01)


def test_copying_memory_is_counted_in_images() -> None:
    limit = memory_copy(1000, 2, 0.02)
    assert math.isclose(limit.images_per_s, limit.bytes_per_s / 1000)


@pytest.mark.gpu
def test_the_bus_to_the_gpu_is_measured() -> None:
    assert pcie(1000, 0.1).bytes_per_s > 1e8


def test_a_limit_takes_turns_like_what_it_limits() -> None:
    window = Ceiling("x", lambda seconds: Limit(8.0, 250.0 * seconds)).turn(Schedule(seconds=2.0))
    assert window.images_per_s == 500.0
