"""The limits of a machine: what is read, dropped and counted, not how fast."""

import itertools
import os
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from benchmarks.measure.harness import Schedule
from benchmarks.stages import limits
from benchmarks.stages.limits import cached_share, disk, drop_pages, libjpeg, memory_copy, pcie
from shards.common.errors import ShardfeedError
from shards.dataset import Split
from tests.conftest import jpeg, photo, write_split

SHORT = Schedule(rounds=1, seconds=0.02, warm_up=1)


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
def test_a_disk_is_counted_in_images_of_this_data_set(
    cold: bool, order: Literal["sequence", "random"], small_split: Split
) -> None:
    with disk("x", small_split, order, cold=cold).open() as counts:
        passes = list(itertools.islice(counts, 3))
    assert passes == pytest.approx([len(small_split)] * 3)  # all of it fits into one count


def test_samples_are_read_each_once_in_a_random_order(small_split: Split) -> None:
    ranges = list(limits._samples(small_split))
    index = small_split.index
    assert ranges != sorted(ranges)
    places = np.stack([index.shard, index.offset, index.size], axis=-1).astype(np.int64).tolist()
    assert sorted(ranges) == sorted(map(tuple, places))


def test_bare_decoding_counts_images(small_split: Split) -> None:
    assert libjpeg("x", small_split).turn(SHORT).images % 16 == 0


def test_images_that_cannot_be_decoded_are_an_error(tmp_path: Path) -> None:
    split = write_split(tmp_path, [jpeg(photo(40, 40, 0))] * 3, short_side=None)
    for path in split.shard_paths:
        path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(ShardfeedError, match="no image"):
        libjpeg("x", split).turn(SHORT)


def test_copying_memory_is_counted_in_images() -> None:
    with memory_copy("x", 1000).open() as counts:
        assert next(counts) * 1000 % limits.COPIED == 0


@pytest.mark.gpu
def test_the_bus_to_the_gpu_is_measured() -> None:
    assert pcie("x", 1000).turn(SHORT).images_per_s > 1e5
