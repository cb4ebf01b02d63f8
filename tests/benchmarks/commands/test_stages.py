"""`python -m benchmarks stages`: its stages, their limits, and what it leaves behind."""

import json
import re
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch

from benchmarks.commands.stages import Options, run
from benchmarks.measure.settings import BatchSpec, DType, LoaderSettings
from benchmarks.stages import ladder
from benchmarks.stages.ladder import COLD_RANDOM, COLD_SEQUENCE, LIBJPEG, MEMORY, PCIE, WARM, limit_of, stages
from shards.common.errors import UsageError
from shards.dataset import Split
from shards.format.layout import Encoding
from shards.format.ppm import ppm
from shards.sampling.crops import Crop
from tests.conftest import photo, write_split

CPU_STAGES = ["read, cold", "read", "+ decode", "+ finish", "+ hand-over", "cached batch"]


@pytest.fixture
def settings(small_split: Split) -> LoaderSettings:
    return LoaderSettings(small_split, BatchSpec(4, resize=40, size=32), "global", threads=1)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Split:
    """12 images stored as pixels."""
    images = [ppm(photo(40, 40 + i, i)) for i in range(12)]
    return write_split(tmp_path_factory.mktemp("raw"), images, short_side=40, encoding="raw")


def test_stored_pixels_have_no_decoder(settings: LoaderSettings, raw: Split) -> None:
    assert [name for name in stages(settings) if name not in (ladder.COPY, ladder.GPU_DECODE)] == CPU_STAGES
    stored = replace(settings, split=raw)
    assert ladder.DECODE not in stages(stored)
    assert ladder.LIBJPEG not in ladder.machine_limits(stored)


@pytest.mark.parametrize("encoding", ["jpeg", "raw"])
@pytest.mark.parametrize("crop", ["random", "rrc", "center"])
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
@pytest.mark.parametrize("resize", [40, 36])
def test_every_stage_gives_full_batches_beyond_an_epoch(
    settings: LoaderSettings, raw: Split, encoding: Encoding, crop: Crop, dtype: DType, resize: int
) -> None:
    split = settings.split if encoding == "jpeg" else raw
    some = replace(settings, split=split, batch=replace(settings.batch, crop=crop, dtype=dtype, resize=resize))
    for contender in [*stages(some).values(), ladder.loop_alone(some)]:
        if contender.name == ladder.GPU_DECODE and dtype == "float32":
            continue
        with contender.open() as batches:
            assert list(islice(batches, 9)) == [4] * 9, contender.name


def test_the_loop_without_a_decoder_keeps_the_order_and_decodes_nothing(settings: LoaderSettings) -> None:
    def labels(**parts: bool) -> list[int]:
        with ladder.feeding(settings, **parts) as batches:
            return [int(label) for _, each in islice(batches, 9) for label in each]

    assert labels(decodes=False, finishes=False) == labels()
    with ladder.feeding(settings, decodes=False, finishes=False) as batches:
        assert next(batches)[0].numel() == 0


@pytest.mark.parametrize(
    ("name", "order", "limit"),
    [
        (ladder.READ_COLD, "global", COLD_RANDOM),
        (ladder.READ_COLD, "blocks", COLD_SEQUENCE),
        (ladder.READ, "global", WARM),
        (ladder.DECODE, "global", LIBJPEG),
        (ladder.HAND_OVER, "global", LIBJPEG),
        (ladder.COPY, "global", PCIE),
        (ladder.GPU_DECODE, "global", PCIE),
        (ladder.CACHED, "global", None),
    ],
)
def test_a_stage_is_held_against_the_lowest_limit_it_has_to_pass(name: str, order: str, limit: str | None) -> None:
    rates = {COLD_RANDOM: 10.0, COLD_SEQUENCE: 20.0, WARM: 900.0, LIBJPEG: 300.0, MEMORY: 700.0, PCIE: 200.0}
    assert limit_of(name, rates, order) == limit


def test_without_a_decoder_the_memory_is_the_limit() -> None:
    assert limit_of(ladder.FINISH, {WARM: 900.0, MEMORY: 700.0}, "global") == MEMORY


def test_the_command_prints_the_ladder_and_ends_with_json(
    small_split: Split, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(Options(small_split.root, batch_size=4, size=32, threads=1, rounds=2, seconds=0.05, out=tmp_path))
    lines = capsys.readouterr().out.splitlines()
    shown = [line.split("  ")[0] for line in lines]
    assert all(name in shown for name in CPU_STAGES)
    # Columns are as wide as their cells: no figure touches the next one.
    cached = next(line for line in lines if line.startswith("cached batch"))
    assert re.fullmatch(r"cached batch  +[\d,]+  +[\d,]+ to [\d,]+  +[\d,.]+  +[\d,.]+", cached)
    result = json.loads(lines[-1])
    groups = {series["name"]: series["settings"]["group"] for series in result["series"]}
    assert {name for name, group in groups.items() if group == "ladder"} >= set(CPU_STAGES)
    assert {name for name, group in groups.items() if group == "limits"} >= {COLD_SEQUENCE, COLD_RANDOM, WARM, LIBJPEG}
    assert all(len(series["values"]) == 2 for series in result["series"])
    assert ("copy to the GPU, PCIe" in result["skipped"]) != torch.cuda.is_available()
    [written] = tmp_path.glob("stages-*.json")
    assert json.loads(written.read_text()) == result


@pytest.mark.parametrize("wrong", [{"batch_size": 30}, {"batch_size": 0}, {"size": 64}, {"threads": 0}, {"rounds": 0}])
def test_work_that_does_not_fit_is_refused_before_measuring(
    wrong: dict[str, int], small_split: Split, tmp_path: Path
) -> None:
    with pytest.raises(UsageError):
        run(Options(small_split.root, out=tmp_path / "out", **{"batch_size": 4, "size": 32, **wrong}))  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()
