"""The clock and the files of a run."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from train.metrics import Clock, Reading, Recorder


class Time:
    """A time that moves only when told."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def test_the_clock_stands_still_between_stop_and_start() -> None:
    time = Time()
    clock = Clock(time)
    clock.start()
    time.seconds += 2
    clock.stop()
    time.seconds += 50  # an evaluation
    clock.start()
    time.seconds += 3
    assert clock.read().seconds == 5


def test_time_until_a_batch_comes_is_waiting_and_time_spent_on_it_is_not() -> None:
    time = Time()
    clock = Clock(time)

    def slow_batches() -> Iterator[int]:
        for batch in (1, 2):
            time.seconds += 1
            yield batch

    clock.start()
    seen = []
    for batch in clock.timed(slow_batches()):
        time.seconds += 4
        clock.count(16)
        seen.append(batch)
    assert seen == [1, 2]
    assert clock.read() == Reading(seconds=10, waited=2, images=32)


def test_images_and_waiting_are_shares_of_a_window() -> None:
    window = Reading(seconds=30.0, waited=4.0, images=700) - Reading(seconds=10.0, waited=2.0, images=500)
    assert window == Reading(seconds=20.0, waited=2.0, images=200)
    assert window.images_per_s == 10
    assert window.wait_percent == 10


def test_a_window_without_time_has_no_speed() -> None:
    assert (Reading().images_per_s, Reading().wait_percent) == (0.0, 0.0)


def test_the_recorder_writes_its_files_line_by_line(tmp_path: Path) -> None:
    with Recorder(tmp_path / "new", {"epochs": 2, "out": tmp_path}) as recorder:
        recorder.metrics("train", 1, 20, loss=1.23456789, lr=1e-5)
        recorder.epoch_time(1, Reading(2.5, 0.1, 100), 0.5, 40.0)
        # Before the end, so that a killed run keeps them.
        lines = (tmp_path / "new/metrics.jsonl").read_text().splitlines()
        assert [json.loads(line) for line in lines] == [
            {"event": "train", "epoch": 1, "step": 20, "loss": 1.23457, "lr": 1e-5}
        ]
        recorder.total_time(Reading(2.5, 0.1, 100), 3.5, 40.0)
    with (tmp_path / "new/epoch_times.csv").open() as file:
        assert list(csv.DictReader(file)) == [
            {"epoch": "1", "train_seconds": "2.500", "validation_seconds": "0.500", "images_per_s": "40.0"}
        ]
    with (tmp_path / "new/total_training_time.csv").open() as file:
        assert list(csv.DictReader(file)) == [
            {"train_seconds": "2.500", "wall_seconds": "3.500", "images": "100", "images_per_s": "40.0"}
        ]
    assert json.loads((tmp_path / "new/config.json").read_text()) == {"epochs": 2, "out": str(tmp_path)}


def test_a_number_that_json_cannot_hold_becomes_null(tmp_path: Path) -> None:
    with Recorder(tmp_path, {}) as recorder:
        recorder.metrics("train", 1, 1, gradient_norm=float("inf"))
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["gradient_norm"] is None


def test_a_recorder_without_a_directory_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Recorder(None, {}) as recorder:
        recorder.metrics("train", 1, 1, loss=1.0)
        recorder.epoch_time(1, Reading(), 0.0, 0.0)
        recorder.total_time(Reading(), 0.0, 0.0)
    assert list(tmp_path.iterdir()) == []
