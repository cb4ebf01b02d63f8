"""The verdict's logic: which stage is named for which figures, by how much, and what is said of it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.measure.result import Series
from benchmarks.stages.names import COPY, DECODE, LOADER, ON_GPU, READ, READ_COLD
from benchmarks.stages.verdict import ADVICE, HELD, MODEL, SUBJECT, Demand, Verdict, _of_cores, _rounded, judge

# A machine of 16 cores whose loader makes 24,000 images/s, 2,000 by each core that works for it.
SPEEDS = {READ_COLD: 9_000.0, READ: 60_000.0, DECODE: 28_000.0, LOADER: 24_000.0, ON_GPU: 20_000.0}
SPEEDS |= {COPY: 40_000.0}


def verdict(
    model: float = 3_000.0,
    *,
    gpus: int = 1,
    gpu_decodes: bool = False,
    free_bytes: float = 100e9,
    cpu_ms: float = 0.5,
    wall: float = 80_000.0,
    **speeds: float,
) -> Verdict:
    """The verdict on that machine, with other speeds for the stages named."""
    named = {"cold": READ_COLD, "read": READ, "decode": DECODE, "loader": LOADER, "copy": COPY}
    changed = SPEEDS | {named.get(name, ON_GPU): value for name, value in speeds.items()}
    stages = [
        Series(name, (speed,), cpu_ms=(0.05 if name in (READ_COLD, READ) else cpu_ms,), settings={"limit": "wall"})
        for name, speed in changed.items()
    ]
    demand = Demand(model, gpus, gpu_decodes, 16, image_bytes=31e3, shard_bytes=40e9, free_bytes=free_bytes)
    return judge([*stages, Series("wall", (wall,))], demand)


@pytest.mark.parametrize(
    ("changes", "bottleneck", "factor"),
    [
        ({}, MODEL, 8.0),
        ({"model": 100.0}, MODEL, 240.0),
        ({"model": 56_000.0}, DECODE, 2.0),  # finishing and handing over hardly slow it down
        ({"model": 48_000.0, "decode": 40_000.0}, LOADER, 2.0),
        ({"model": 60_000.0, "copy": 6_000.0}, COPY, 10.0),
        ({"cold": 1_000.0}, MODEL, 8.0),  # the page cache holds the shards
        ({"cold": 1_000.0, "free_bytes": 1e9}, READ_COLD, 3.0),
        (
            {"cold": 1_000.0, "read": 1_100.0, "decode": 990.0, "loader": 950.0},
            READ_COLD,
            3.0,
        ),  # the page cache does not help
        ({"cold": 1_000.0, "read": 1_500.0, "decode": 1_460.0, "loader": 1_450.0}, READ, 2.0),
        ({"gpu_decodes": True, "on_gpu": 1_500.0, "loader": 100.0}, ON_GPU, 2.0),
        ({"gpu_decodes": True, "on_gpu": 6_000.0, "copy": 100.0}, MODEL, 2.0),
        # Sixteen processes share 16 cores of 2,000 images/s; each has its own Python.
        ({"gpus": 16}, DECODE, 1.5),
        ({"gpus": 8, "model": 2_500.0, "decode": 9_000.0, "loader": 8_000.0}, MODEL, 1.6),
    ],
)
def test_the_slowest_stage_is_named_with_its_factor(changes: dict[str, Any], bottleneck: str, factor: float) -> None:
    found = verdict(**changes)
    assert found.bottleneck == bottleneck
    assert found.factor == pytest.approx(factor)
    assert found.advice == ADVICE[bottleneck]


rates = st.floats(1.0, 1e6)


@given(rates, rates, rates, rates, st.integers(1, 16))
def test_the_verdict_is_consistent_for_all_figures(
    model: float, cold: float, read: float, loader: float, gpus: int
) -> None:
    found = verdict(model, gpus=gpus, cold=cold, read=read, loader=loader)
    assert found.speeds[found.bottleneck] <= HELD * min(found.speeds.values())
    assert found.factor > 0
    assert found.cores >= gpus + model * gpus / 2_000
    assert (found.bottleneck == MODEL) == (model * gpus <= min(found.speeds.values()))


@pytest.mark.parametrize(
    ("gpus", "model", "cpu_ms", "cores"), [(1, 3000.0, 0.5, 3), (8, 2500.0, 0.5, 18), (1, 1.0, 111.0, 2)]
)
def test_cores_are_those_that_decode_and_one_a_gpu(gpus: int, model: float, cpu_ms: float, cores: int) -> None:
    assert verdict(model, gpus=gpus, cpu_ms=cpu_ms).cores == cores


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"model": 56_000.0},
            "Decoding is the bottleneck: 28,000 images/s, and the model could train 56,000 images/s on 1 GPU, 2.0",
        ),
        ({"model": 56_000.0}, "The limit of this machine there (wall) is 80,000 images/s"),
        (
            {},
            "The model is the bottleneck: it trains 3,000 images/s on 1 GPU, and the loader could give 24,000, 8.0",
        ),
        (
            {"gpus": 2, "model": 5000.0},
            "2 GPUs of 5,000 images/s needs 7 cores: by processor time a core feeds 2,000 images/s",
        ),
        ({}, "The disk has to give 93 MB/s, unless memory holds the shards: they have 40 GB, and 100 GB are free"),
        ({"cold": 1_000.0}, "Only the first epoch reads from the disk, at 1,000 images/s"),
    ],
)
def test_the_findings_say_it_in_words(changes: dict[str, Any], told: str) -> None:
    assert told in "\n".join(verdict(**changes).findings)


def test_a_cpu_that_trains_is_not_called_a_gpu() -> None:
    told = "\n".join(verdict(10.0, gpus=0).findings)
    assert "it trains 10.0 images/s on this CPU" in told
    assert "Feeding takes 0.5% of one core: by processor time a core feeds 2,000 images/s" in told
    assert "GPU" not in told


def test_a_stage_is_never_slower_than_one_that_does_more() -> None:
    speeds = verdict(read=1_000.0, decode=500.0, loader=800.0).speeds
    assert (speeds[READ], speeds[DECODE], speeds[LOADER]) == (1_000.0, 800.0, 800.0)


def test_a_limit_below_its_stage_is_not_told() -> None:
    assert "limit" not in "\n".join(verdict(56_000.0, decode=24_500.0, wall=20_000.0).findings)


def test_every_stage_has_words_and_advice() -> None:
    assert ADVICE.keys() - {MODEL} == SUBJECT.keys() == SPEEDS.keys()


@pytest.mark.parametrize(
    ("cores", "words"),
    [
        (0.0004, "less than 0.1% of one core"),
        (0.00186, "0.2% of one core"),
        (0.42, "42% of one core"),
        (2.34, "2.3 of its 8 cores"),
    ],
)
def test_cores_that_feed_in_words(cores: float, words: str) -> None:
    assert _of_cores(cores, 8) == words


@pytest.mark.parametrize(("value", "words"), [(0.016, "less than 0.1"), (0.25, "0.2"), (9.5, "9.5"), (1234.5, "1,234")])
def test_figures_for_people_are_rounded(value: float, words: str) -> None:
    assert _rounded(value) == words
