"""The ladder: its stages, what each of them delivers, and which limit it is held against."""

from dataclasses import replace
from itertools import islice

import pytest
import torch

from benchmarks.measure.harness import Schedule
from benchmarks.measure.settings import BatchSpec, DType, LoaderSettings
from benchmarks.stages import ladder
from benchmarks.stages.ladder import CACHE, DISK, LIBJPEG, MEMORY, PCIE, limit_of, limits_of, stages_of
from shards.dataset import Split
from shards.format.layout import Encoding
from shards.format.ppm import ppm
from shards.sampling.crops import Crop
from tests.conftest import photo, write_split

ON_A_CPU = ["read, cold", "read", "+ decode", "+ finish", "loader"]


@pytest.fixture
def settings(small_split: Split) -> LoaderSettings:
    return LoaderSettings(small_split, BatchSpec(4, resize=40, size=32), "global", threads=1)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Split:
    """12 images stored as pixels."""
    images = [ppm(photo(40, 40 + i, i)) for i in range(12)]
    return write_split(tmp_path_factory.mktemp("raw"), images, short_side=40, encoding="raw")


def test_stored_pixels_have_no_decoder(settings: LoaderSettings, raw: Split) -> None:
    assert [name for name in stages_of(settings) if name not in (ladder.ON_GPU, ladder.COPY)] == ON_A_CPU
    stored = replace(settings, split=raw)
    assert ladder.DECODE not in stages_of(stored)
    assert LIBJPEG not in limits_of(stored)


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


@pytest.mark.parametrize(
    ("stage", "limit"),
    [
        (ladder.READ_COLD, DISK),
        (ladder.READ, CACHE),
        (ladder.DECODE, LIBJPEG),
        (ladder.LOADER, LIBJPEG),
        (ladder.ON_GPU, CACHE),
        (ladder.COPY, PCIE),
    ],
)
def test_a_stage_is_held_against_the_lowest_limit_it_has_to_pass(stage: str, limit: str) -> None:
    assert limit_of(stage, {DISK: 20.0, CACHE: 900.0, LIBJPEG: 300.0, MEMORY: 700.0, PCIE: 200.0}) == limit


def test_without_a_decoder_the_memory_is_the_limit() -> None:
    assert limit_of(ladder.FINISH, {CACHE: 900.0, MEMORY: 700.0}) == MEMORY


def test_stages_and_limits_are_measured_together(settings: LoaderSettings) -> None:
    measured = ladder.ladder(settings, Schedule(2, 0.02, warm_up=1))
    groups = {series.name: series.settings["group"] for series in measured}
    assert [name for name, group in groups.items() if group == "ladder"][:5] == ON_A_CPU
    assert {name for name, group in groups.items() if group == "limits"} >= {DISK, CACHE, LIBJPEG, MEMORY}
    assert (PCIE in groups) == torch.cuda.is_available()
    assert {len(series.values) for series in measured} == {2}
    assert {series.settings["limit"] for series in measured if "limit" in series.settings} <= groups.keys()
