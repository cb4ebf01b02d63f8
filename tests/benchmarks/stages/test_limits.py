"""The limits of a machine: what is read, dropped and counted, not how fast."""

import itertools

import pytest

from benchmarks.stages import limits
from shards.dataset import Split


@pytest.mark.parametrize("cold", [True, False])
def test_a_disk_is_counted_in_images_of_this_data_set(cold: bool, small_split: Split) -> None:
    with limits.disk(small_split, cold) as counts:
        passes = list(itertools.islice(counts, 3))
    assert passes == pytest.approx([len(small_split)] * 3)  # all of it fits into one count


def test_dropped_shards_can_still_be_read(small_split: Split) -> None:
    before = [path.read_bytes() for path in small_split.shard_paths]
    limits.drop_pages(small_split)
    assert [path.read_bytes() for path in small_split.shard_paths] == before


def test_copying_memory_is_counted_in_images() -> None:
    with limits.memory_copy(1000) as counts:
        assert next(counts) * 1000 % limits.COPIED == 0


@pytest.mark.gpu
def test_the_bus_to_the_gpu_is_counted_in_images() -> None:
    with limits.pcie(1000) as counts:
        assert next(counts) * 1000 == limits.COPIED
