"""The ladder: its stages and limits, what each of them delivers, and which limit a stage is held against."""

from dataclasses import replace
from itertools import islice

import pytest

from benchmarks.measure.harness import Schedule
from benchmarks.measure.settings import BatchSpec, DType, LoaderSettings
from benchmarks.stages import ladder
from benchmarks.stages.ladder import stages_of
from benchmarks.stages.names import CACHE, DECODE, DISK, LIBJPEG, LOADER, READ, READ_COLD
from shards.dataset import Split
from shards.format.layout import Encoding
from shards.format.ppm import ppm
from shards.sampling.crops import Crop
from tests.conftest import photo, write_split

ON_A_CPU = ["read, cold", "read", "+ decode", "loader"]


@pytest.fixture
def settings(small_split: Split) -> LoaderSettings:
    return LoaderSettings(small_split, BatchSpec(4, resize=40, size=32), "global", 1)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Split:
    """12 images stored as pixels."""
    images = [ppm(photo(40, 40 + i, i)) for i in range(12)]
    return write_split(tmp_path_factory.mktemp("raw"), images, short_side=40, encoding="raw")


@pytest.mark.parametrize("encoding", ["jpeg", "raw"])
@pytest.mark.parametrize("crop", ["random", "rrc", "center"])
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
@pytest.mark.parametrize("resize", [40, 36])
def test_every_stage_gives_full_batches_beyond_an_epoch(
    settings: LoaderSettings, raw: Split, encoding: Encoding, crop: Crop, dtype: DType, resize: int
) -> None:
    split = settings.split if encoding == "jpeg" else raw
    some = replace(settings, split=split, batch=replace(settings.batch, crop=crop, dtype=dtype, resize=resize))
    for name, open_ in stages_of(some).items():
        with open_() as counts:
            assert list(islice(counts, 9)) == [4] * 9, name


def test_stages_and_limits_are_measured_together(settings: LoaderSettings, raw: Split) -> None:
    measured = ladder.ladder(settings, Schedule(2, 0.02, warm_up=1))
    groups = {series.name: series.settings["group"] for series in measured}
    assert [name for name, group in groups.items() if group == "stages"][:4] == ON_A_CPU
    assert [name for name, group in groups.items() if group == "limits"] == [DISK, CACHE, LIBJPEG]
    assert {len(series.values) for series in measured} == {2}
    limits = {series.name: series.settings.get("limit") for series in measured}
    assert (limits[READ_COLD], limits[READ], limits[LOADER]) == (DISK, CACHE, LIBJPEG)


def test_stored_pixels_have_no_decoder(settings: LoaderSettings, raw: Split) -> None:
    measured = ladder.ladder(replace(settings, split=raw), Schedule(1, 0.02, warm_up=1))
    found = {series.name: series.settings.get("limit") for series in measured}
    assert not found.keys() & {DECODE, LIBJPEG}
    assert found[LOADER] == CACHE


@pytest.mark.parametrize("cold", [True, False])
def test_a_disk_is_counted_in_images_of_this_data_set(cold: bool, small_split: Split) -> None:
    with ladder._disk(small_split, cold) as counts:
        assert list(islice(counts, 3)) == pytest.approx([len(small_split)] * 3)  # all of it fits into one count


def test_dropped_shards_can_still_be_read(small_split: Split) -> None:
    before = [path.read_bytes() for path in small_split.shard_paths]
    ladder.drop_pages(small_split)
    assert [path.read_bytes() for path in small_split.shard_paths] == before
