"""The verdict's logic: which stage is named for which figures, by how much, and what is advised."""

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.stages.figures import COPY, DECODE, DISK, HELD, MODEL, PYTHON, Figures
from benchmarks.stages.verdict import judge

# A machine of 16 cores with a GPU of 3,000 images/s: everything feeds it easily.
FINE = Figures(
    model=3_000,
    model_runs="gpu",
    gpus=1,
    disk=9_000,
    disk_in_sequence=40_000,
    order="global",
    stored_bytes=40 * 10**9,
    cache_bytes=100 * 10**9,
    image_bytes=31_000.0,
    raw_bytes=294_000.0,
    encoding="jpeg",
    short_side=256,
    resize=256,
    decode=24_000,
    decode_default=None,
    per_core=2_000,
    cores=16,
    threads=17,
    default_threads=17,
    python=40_000,
    batch_size=64,
)


def but(**changes: Any) -> Figures:
    return dataclasses.replace(FINE, **changes)


@pytest.mark.parametrize(
    ("figures", "bottleneck", "factor"),
    [
        (FINE, MODEL, 8.0),
        (but(model=100), MODEL, 240.0),
        (but(model=30_000), DECODE, 1.25),
        (but(model=48_000), DECODE, 2.0),
        (but(gpus=16), DECODE, 1.5),
        (but(decode=1_500), DECODE, 2.0),
        (but(python=1_000, disk=900), DISK, 3_000 / 900),  # the page cache does not help
        (but(disk=1_000, cache_bytes=10**9), DISK, 3.0),
        (but(disk=1_000), MODEL, 8.0),  # the page cache holds the shards
        (but(python=1_000), PYTHON, 3.0),
        (but(copy=1_500.0), COPY, 2.0),
        (but(copy=1_500.0, gpus=2), COPY, 2.0),
        (but(gpu_decode=1_500.0), DECODE, 2.0),
        (but(gpu_decode=1_500.0, copy=100.0), DECODE, 2.0),  # encoded bytes cross the bus
        (but(decode=100, gpu_decode=6_000.0), MODEL, 2.0),
        # What measures the loader as a whole is as slow as the part that holds it back, give or take some noise.
        (but(disk=1_000, decode=950, python=980), DISK, 3.0),
        (but(disk=1_100, decode=1_000, python=1_050), DISK, 3_000 / 1_100),
        (but(python=1_000, decode=990), PYTHON, 3.0),
        (but(python=2_000, decode=1_000), DECODE, 3.0),
        # One process measured decoding, and its Python held it back; with a process for each of 8 GPUs it does not.
        (but(gpus=8, model=2_500, python=10_000, disk=5_000, decode=9_500), MODEL, 1.6),
    ],
)
def test_the_slowest_stage_is_named_with_its_factor(figures: Figures, bottleneck: str, factor: float) -> None:
    verdict = judge(figures)
    assert verdict.bottleneck == verdict.stages[0].name == bottleneck
    assert verdict.factor == pytest.approx(factor)


rates = st.floats(1.0, 1e6)


@given(rates, rates, rates, rates, st.one_of(st.none(), rates), st.integers(1, 16))
def test_the_verdict_is_consistent_for_all_figures(
    model: float, disk: float, decode: float, python: float, copy: float | None, gpus: int
) -> None:
    figures = but(model=model, disk=disk, decode=decode, python=python, copy=copy, gpus=gpus)
    verdict = judge(figures)
    least = min(stage.images_per_s for stage in verdict.stages)
    assert verdict.stages[0].images_per_s <= HELD * least
    assert len({stage.name for stage in verdict.stages}) == len(verdict.stages)
    assert len(verdict.stages) == 3 + (copy is not None) + (not figures.cached)
    assert verdict.factor > 0
    assert verdict.cores >= gpus + model * gpus / figures.per_core
    assert verdict.summary
    assert verdict.advice
    if verdict.bottleneck == MODEL:
        assert verdict.factor >= 1


def advice(figures: Figures) -> str:
    return "\n".join(judge(figures).advice)


@pytest.mark.parametrize(
    ("figures", "told"),
    [
        (
            but(disk=1_000, cache_bytes=10**9),
            "--order blocks: shards are read in sequence, which this disk does at 40,",
        ),
        (but(disk=1_000, cache_bytes=10**9), "needs 93 MB/s of these shards"),
        (but(disk=1_000, cache_bytes=10**9), "40.0 GB, and 1.0 GB of memory are free"),
        (but(disk=1_000, python=1_100, encoding="raw"), "JPEG shards"),
        (but(disk=1_000, python=1_100, short_side=None), "--short-side 256"),
        (but(decode=1_500, threads=1, decode_default=22_000.0), "--threads 17: 1 decoding thread leaves cores idle"),
        (but(decode=1_500, threads=1, decode_default=22_000.0), "22,000 images/s (measured)"),
        (but(decode=1_500, short_side=512), "--short-side 256 (python -m preprocess): the images are stored with a"),
        (but(decode=1_500), "9.5 times the room, 379.4 GB, and training needs 882 MB/s"),
        (but(decode=1_500, cores=2), "More cores: 3 in place of 2"),
        (but(decode=1_500, model_runs="given"), "--device gpu"),
        (but(gpu_decode=1_500.0), "Loader(decode='cpu'): the CPU decodes 24,000 images/s"),
        (but(python=1_000), "--micro-batch"),
        (but(copy=1_500.0), "decode='region'"),
        (FINE, "This machine could feed 6 such GPUs"),
        (but(model=20, model_runs="cpu"), "A GPU."),
    ],
)
def test_the_advice_fits_the_bottleneck(figures: Figures, told: str) -> None:
    assert told in advice(figures)


@pytest.mark.parametrize(
    ("figures", "untold"),
    [
        (but(disk=1_000, cache_bytes=10**9, order="blocks"), "--order blocks"),
        (but(disk=1_000, disk_in_sequence=1_100, cache_bytes=10**9), "--order blocks"),
        (but(decode=1_500), "--threads"),
        (but(decode=1_500), "--short-side"),
        (but(decode=1_500, encoding="raw"), "--encoding raw"),
        (but(decode=1_500, encoding="raw", model_runs="given"), "--device gpu"),
        (but(decode=1_500, cores=64), "More cores"),
        (but(gpu_decode=1_500.0, decode=1_500), "decode='cpu'"),
        (but(model=23_000), "could feed"),
    ],
)
def test_what_would_not_help_is_not_advised(figures: Figures, untold: str) -> None:
    assert untold not in advice(figures)


@pytest.mark.parametrize(
    ("gpus", "model", "per_core", "cores"), [(1, 3000, 2000, 3), (8, 2500, 2000, 18), (1, 1, 9, 2)]
)
def test_cores_are_those_that_decode_and_one_a_gpu(gpus: int, model: float, per_core: float, cores: int) -> None:
    assert but(gpus=gpus, model=model, per_core=per_core).cores_needed == cores


def summary(figures: Figures) -> str:
    return "\n".join(judge(figures).summary)


@pytest.mark.parametrize(
    ("figures", "told"),
    [
        (but(model=48_000), "Decoding is the bottleneck: 24,000 images/s, where 1 GPU could train 48,000, 2.0 times"),
        (FINE, "The GPU is the bottleneck: training takes 3,000 images/s, and everything before it could give 24,000"),
        (but(gpus=2), "The GPUs are the bottleneck"),
        (but(model=20, model_runs="cpu"), "The model on the CPU is the bottleneck"),
        (but(model=20, model_runs="cpu"), "computes on the cores that decode"),
        (but(model=25_000), "Within 10% of it: the model."),
        (but(model=48_000), "needs 25 cores"),
        (but(model=48_000, encoding="raw"), "Cropping raw pixels is the bottleneck"),
        (but(disk=1_000), "The first epoch reads from the disk, at 1,000 images/s"),
        (but(together=2_900.0, waited=0.03), "2,900 images/s, waiting for data 3% of the time"),
    ],
)
def test_the_summary_says_it_in_words(figures: Figures, told: str) -> None:
    assert told in summary(figures)


@pytest.mark.parametrize("name", ["model", "disk", "decode", "per_core", "python", "gpus", "copy"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_figures_that_cannot_be_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        judge(but(**{name: value}))


def test_how_many_gpus_are_fed_goes_by_what_they_share() -> None:
    # 16 cores: 1.5 for the images of each GPU and one for its process.
    assert FINE.feedable == 6
    assert but(gpus=6).cores_needed <= 16 < but(gpus=7).cores_needed
    # Each GPU decodes for itself: what one decodes says nothing of their number.
    assert but(gpu_decode=6_000.0, gpus=4).feedable == 16
    assert but(gpu_decode=6_000.0, cache_bytes=10**9).feedable == 3


def test_decoding_that_slows_the_model_on_its_gpu_is_named() -> None:
    slow, fine = but(gpu_decode=9_000.0, together=2_000.0), but(gpu_decode=9_000.0, together=2_900.0)
    assert judge(slow).bottleneck == judge(fine).bottleneck == MODEL
    assert any("decode='cpu'" in line for line in judge(slow).advice)
    assert any("on the GPU that trains" in line for line in judge(slow).summary)
    assert not any("Nothing in the loader" in line for line in judge(slow).advice)
    assert not any("decode='cpu'" in line for line in judge(fine).advice)
    assert not any("on the GPU that trains" in line for line in judge(fine).summary)


def test_what_holds_back_a_part_of_the_slowest_is_named() -> None:
    assert judge(but(decode=100, python=120, disk=145)).bottleneck == DISK
    assert judge(but(decode=100, python=120, disk=160)).bottleneck == PYTHON
