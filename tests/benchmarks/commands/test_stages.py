"""`python -m benchmarks stages`: its rungs, their limits, and what it leaves behind."""

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch

from benchmarks.commands.stages import BARE, COLD_RANDOM, COLD_SEQUENCE, MEMORY, PCIE, WARM, Options, limit_of, run
from benchmarks.ladder import rungs as ladder
from benchmarks.ladder.rungs import Work, rungs
from shards.common.errors import UsageError
from shards.dataset import Split

CPU_RUNGS = ["read, cold", "read", "+ decode", "+ normalise", "+ hand-over", "cached batch"]


@pytest.fixture
def work(small_split: Split) -> Work:
    return Work(small_split, 4, size=32, resize=40, crop="random", order="global", dtype="float32", threads=1)


def without_gpu(names: list[str]) -> list[str]:
    return [name for name in names if name not in (ladder.COPY, ladder.ON_GPU)]


def test_the_ladder_has_the_rungs_that_the_work_needs(work: Work) -> None:
    assert without_gpu([rung.name for rung in rungs(work)]) == CPU_RUNGS
    resized = [*CPU_RUNGS[:3], "+ crop, resize", *CPU_RUNGS[3:]]
    assert without_gpu([rung.name for rung in rungs(replace(work, crop="rrc"))]) == resized
    assert without_gpu([rung.name for rung in rungs(replace(work, resize=36))]) == resized
    pixels = replace(work, dtype="uint8")
    assert without_gpu([rung.name for rung in rungs(pixels)]) == [*CPU_RUNGS[:3], "+ flip", *CPU_RUNGS[4:]]
    resized = [*CPU_RUNGS[:3], "+ crop, resize", *CPU_RUNGS[4:]]
    assert without_gpu([rung.name for rung in rungs(replace(pixels, crop="rrc"))]) == resized


@pytest.mark.parametrize("crop", ["random", "rrc", "center"])
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
@pytest.mark.parametrize("resize", [40, 36])
def test_every_rung_gives_full_batches_beyond_an_epoch(work: Work, crop: str, dtype: str, resize: int) -> None:
    some = replace(work, crop=crop, dtype=dtype, resize=resize)  # type: ignore[arg-type]
    for rung in rungs(some):
        if rung.name == ladder.ON_GPU and dtype == "float32":
            continue
        with rung.open() as batches:
            assert list(islice(batches, 9)) == [4] * 9, rung.name


@pytest.mark.parametrize(
    ("rung", "order", "limit"),
    [
        (ladder.READ_COLD, "global", COLD_RANDOM),
        (ladder.READ_COLD, "blocks", COLD_SEQUENCE),
        (ladder.READ, "global", WARM),
        (ladder.DECODE, "global", BARE),
        (ladder.HAND_OVER, "global", BARE),
        (ladder.COPY, "global", PCIE),
        (ladder.ON_GPU, "global", PCIE),
        (ladder.CACHED, "global", None),
    ],
)
def test_a_rung_is_held_against_the_lowest_limit_it_has_to_pass(rung: str, order: str, limit: str | None) -> None:
    rates = {COLD_RANDOM: 10.0, COLD_SEQUENCE: 20.0, WARM: 900.0, BARE: 300.0, MEMORY: 700.0, PCIE: 200.0}
    assert limit_of(rung, rates, order) == limit


def test_without_a_decoder_the_memory_is_the_limit() -> None:
    assert limit_of(ladder.NORMALISE, {WARM: 900.0, MEMORY: 700.0}, "global") == MEMORY


def test_the_command_prints_the_ladder_and_ends_with_json(
    small_split: Split, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(Options(small_split.root, batch_size=4, size=32, threads=1, rounds=2, seconds=0.05, out=tmp_path))
    lines = capsys.readouterr().out.splitlines()
    shown = [line.split("  ")[0] for line in lines]
    assert all(name in shown for name in CPU_RUNGS)
    result = json.loads(lines[-1])
    groups = {series["name"]: series["settings"]["group"] for series in result["series"]}
    assert {name for name, group in groups.items() if group == "ladder"} >= set(CPU_RUNGS)
    assert {name for name, group in groups.items() if group == "limits"} >= {COLD_SEQUENCE, COLD_RANDOM, WARM, BARE}
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
