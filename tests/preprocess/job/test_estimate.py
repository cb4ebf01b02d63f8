"""The estimate before a job, and the check that the disk has room for it."""

import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocess.job.estimate import (
    END,
    SAMPLES,
    Estimate,
    check_space,
    estimate,
    sample,
    stored_bytes,
    time_in_words,
)
from preprocess.job.plan import Plan
from preprocess.job.task import ShardJob
from preprocess.sources import open_source
from shards.common.errors import ShardfeedError
from shards.common.space import free_bytes, size
from shards.format.manifest import Settings
from tests.helpers.jobs import convert


def job(out: Path, name: str = "synthetic:train=60,validation=20") -> ShardJob:
    source = open_source(name)
    splits = {split: source.num_rows(split) for split in source.splits}
    return ShardJob(source, Plan(source.name, source.fingerprint, splits, Settings(64, shard_size=10), "0", {}), out)


@given(
    lengths=st.lists(st.integers(0, 300), min_size=1, max_size=4),
    count=st.integers(0, 250),
    seed=st.integers(0, 2**32),
)
def test_a_sample_has_each_row_at_most_once_and_is_spread_over_the_splits(
    lengths: list[int], count: int, seed: int
) -> None:
    rows = {f"split{i}": np.arange(n) * 7 for i, n in enumerate(lengths)}
    chosen = sample(rows, count, seed)
    assert len(chosen) == len(set(chosen)) == min(count, sum(lengths))
    assert all(row in rows[split] for split, row in chosen)
    for split, part in rows.items():
        share = len(part) * len(chosen) / max(1, sum(lengths))
        assert abs(sum(name == split for name, _ in chosen) - share) <= 2


def test_the_seed_chooses_the_sample() -> None:
    rows = {"train": np.arange(10_000)}
    assert sample(rows, 50, 0) == sample(rows, 50, 0) != sample(rows, 50, 1)


def test_the_estimate_is_close_to_what_is_written(tmp_path: Path) -> None:
    made = job(tmp_path / "out")
    needed = estimate(made, made.plan.tasks)
    assert needed.images == 80
    assert needed.bytes <= needed.most
    assert needed.seconds > 0
    convert("synthetic:train=60,validation=20", tmp_path / "out", "--short-side", "64")
    written = sum(path.stat().st_size for path in (tmp_path / "out").rglob("*") if path.suffix in (".tar", ".idx"))
    assert written == pytest.approx(needed.bytes, rel=0.35)  # from eight images


def test_few_images_of_a_small_source_are_read_and_at_most_200_of_a_large_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []

    def convert_row(self: ShardJob, split: str, row: int) -> object:
        read.append(row)
        return made_row

    small, large = job(tmp_path), job(tmp_path, "synthetic:train=1000000")
    made_row = small.convert_row("train", 0)
    monkeypatch.setattr(ShardJob, "convert_row", convert_row)
    for made, expected in ((small, 8), (large, SAMPLES)):
        read.clear()
        estimate(made, made.plan.tasks[:5_000])
        assert len(set(read)) == expected


def test_nothing_left_to_do_needs_nothing(tmp_path: Path) -> None:
    assert estimate(job(tmp_path), []) == Estimate(0, 0, 0, 0.0)


def test_free_space_is_that_of_what_exists(tmp_path: Path) -> None:
    free, place = free_bytes(tmp_path / "not" / "yet")
    assert place == tmp_path
    assert free > 0


def test_what_fits_passes_and_what_does_not_says_the_numbers(tmp_path: Path) -> None:
    check_space(tmp_path, Estimate(10, 1000, 1100, 0.1))
    with pytest.raises(
        ShardfeedError, match=r"10 images need about 1000\.0 TB \(estimated from a sample; 1100\.0 TB at most\)"
    ):
        check_space(tmp_path, Estimate(10, 10**15, 11 * 10**14, 0.1))


def test_a_stored_jpeg_fills_blocks() -> None:
    assert stored_bytes(513) - stored_bytes(512) == 512


def test_numbers_for_people() -> None:
    assert [size(n) for n in (7, 1500, 2.5e9, 4e13)] == ["7 B", "1.5 kB", "2.5 GB", "40.0 TB"]
    assert time_in_words(6) == "a few seconds"
    said = [time_in_words(n) for n in (7, 50, 60, 600, 7200, 360_000)]
    assert said == ["6 to 11 s", "40 to 80 s", "1 to 2 min", "8 to 16 min", "1.6 to 3.2 h", "80.0 to 160.0 h"]


def test_a_shard_is_the_work_of_one_worker_and_more_workers_must_start() -> None:
    needed = Estimate(0, 0, 0, seconds=0.1, start=2.0)
    assert needed.duration([600, 150], 2) == pytest.approx(62 + END)
    assert needed.duration([100] * 5, 2) == pytest.approx(32 + END)
    assert needed.duration([100], 2) == pytest.approx(10 + END)  # in the main process
    assert needed.duration([100] * 5, 1) == pytest.approx(50 + END)
    assert needed.duration([], 2) == 0


def test_a_sample_is_converted_while_as_many_others_compute_as_the_job_will_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[bytes]] = []

    class Noted(subprocess.Popen[bytes]):
        def __init__(self, *words: Any, **options: Any) -> None:
            super().__init__(*words, **options)
            started.append(self)

    def convert_row(self: ShardJob, split: str, row: int) -> object:
        running.append([process.poll() is None for process in started])
        return made_row

    running: list[list[bool]] = []
    made = job(tmp_path)
    made_row = made.convert_row("train", 0)
    monkeypatch.setattr("preprocess.job.estimate.LEAST", 0.0)
    monkeypatch.setattr(subprocess, "Popen", Noted)
    monkeypatch.setattr(ShardJob, "convert_row", convert_row)
    estimate(made, made.plan.tasks, workers=3)
    assert running == [[], [], *[[True, True]] * 8]
    assert all(process.returncode is not None for process in started)


def test_a_short_job_is_held_up_no_longer_than_it_takes_and_by_no_other_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, clock = job(tmp_path), [0.0]
    made_row = made.convert_row("train", 0)

    def convert_row(self: ShardJob, split: str, row: int) -> object:
        clock[0] += 2**-10  # 80 images take less than LEAST
        return made_row

    monkeypatch.setattr(subprocess, "Popen", None)
    monkeypatch.setattr(ShardJob, "convert_row", convert_row)
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    needed = estimate(made, made.plan.tasks, workers=3)
    assert clock[0] == (2 + 80) * 2**-10
    assert needed.seconds == 2**-10


def test_what_the_first_image_takes_to_load_is_no_part_of_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, clock, calls = job(tmp_path), [0.0], list[int]()
    made_row = made.convert_row("train", 0)

    def slow_at_first(self: ShardJob, split: str, row: int) -> object:
        calls.append(row)
        clock[0] += 1 if len(calls) == 1 else 0.01
        return made_row

    monkeypatch.setattr("preprocess.job.estimate.SECONDS", 0.5)
    monkeypatch.setattr(ShardJob, "convert_row", slow_at_first)
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    assert estimate(made, made.plan.tasks).seconds == pytest.approx(0.01)
    assert len(calls) > 3


def test_the_start_of_a_worker_is_estimated_and_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = job(tmp_path)
    assert estimate(made, made.plan.tasks).start > 0
    monkeypatch.setattr("preprocess.job.estimate.LONGEST_START", 0.0)
    assert estimate(made, made.plan.tasks).start == 0
