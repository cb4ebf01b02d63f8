"""The files of a run."""

import csv
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from shards.common.errors import ShardfeedError
from tests.helpers.training import read_lines
from train.curves import METRICS
from train.report.clock import ClockReading
from train.report.metrics import TOTAL_TIME, LogPosition, Recorder, write_per_class


@pytest.fixture
def no_curves() -> None:
    """Here they are drawn."""


def test_the_recorder_writes_its_files_line_by_line(tmp_path: Path) -> None:
    with Recorder(tmp_path / "new", {"epochs": 2, "out": tmp_path}) as recorder:
        recorder.metrics("train", 1, 20, loss=1.23456789, lr=1e-5, skipped_steps=3)
        recorder.epoch_time(1, ClockReading(2.5, 0.1, 100), 0.5, 40.0)
        # Before the end, so that a killed run keeps them.
        lines = (tmp_path / "new/metrics.jsonl").read_text().splitlines()
        [line] = [json.loads(line) for line in lines]
        written = datetime.fromisoformat(line.pop("time"))
        assert timedelta(0) <= datetime.now(UTC) - written < timedelta(minutes=5)
        assert line == {"event": "train", "epoch": 1, "step": 20, "loss": 1.23457, "lr": 1e-5, "skipped_steps": 3}
        assert lines[0].endswith('"skipped_steps": 3}')  # a count is written as one
        recorder.total_time(ClockReading(2.5, 0.1, 100), 3.5, 40.0, 28)
    with (tmp_path / "new/epoch_times.csv").open() as file:
        assert list(csv.DictReader(file)) == [
            {"epoch": "1", "train_seconds": "2.500", "validation_seconds": "0.500", "images_per_s": "40.0"}
        ]
    with (tmp_path / "new/total_training_time.csv").open() as file:
        assert list(csv.DictReader(file)) == [
            {
                "train_seconds": "2.500",
                "wall_seconds": "3.500",
                "images": "100",
                "images_left_out": "28",
                "images_per_s": "40.0",
            }
        ]
    assert (tmp_path / "new/curves.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "new/config.json").read_text()) == {"epochs": 2, "out": str(tmp_path)}


def test_a_number_that_json_cannot_hold_becomes_null(tmp_path: Path) -> None:
    with Recorder(tmp_path, {}) as recorder:
        recorder.metrics("train", 1, 1, gradient_norm=float("inf"))
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["gradient_norm"] is None


def test_a_recorder_without_a_directory_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Recorder(None, {}) as recorder:
        recorder.metrics("train", 1, 1, loss=1.0)
        recorder.epoch_time(1, ClockReading(), 0.0, 0.0)
        recorder.total_time(ClockReading(), 0.0, 0.0, 0)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_a_power_loss_cut_goes_on_after_its_last_whole_line(tmp_path: Path) -> None:
    with Recorder(tmp_path, {}) as recorder:
        for step in (1, 2):
            recorder.metrics("train", 1, step, loss=1.0)
        position = LogPosition(2, recorder.sizes())
    text = (tmp_path / METRICS).read_text()
    (tmp_path / METRICS).write_text(text[:-10])
    with Recorder(tmp_path, {}, position) as recorder:
        recorder.metrics("train", 1, 3, loss=1.0)
        recorder.total_time(ClockReading(), 0.0, 0.0, 0)
    assert [line["step"] for line in read_lines(tmp_path / METRICS)] == [1, 3]
    assert (tmp_path / "curves.png").exists()


def test_the_picture_has_no_line_that_a_run_which_goes_on_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A kill after a checkpoint leaves lines that the run writes again, of other lengths."""
    drawn: list[dict[str, object]] = []
    monkeypatch.setattr("train.curves.draw", lambda _, lines: drawn.extend(lines))
    with Recorder(tmp_path, {}) as recorder:
        recorder.metrics("train", 1, 1, loss=1.0)
        position = LogPosition(1, recorder.sizes())
        recorder.metrics("train", 1, 2, loss=1.234567)
    with Recorder(tmp_path, {}, position) as recorder:
        recorder.metrics("train", 1, 2, loss=2.5)
        recorder.metrics("train", 1, 3, loss=3.5)
        recorder.total_time(ClockReading(), 0.0, 0.0, 0)
    assert [line["loss"] for line in drawn] == [1.0, 2.5, 3.5]
    assert not capsys.readouterr().err


def test_a_picture_that_cannot_be_drawn_fails_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def draw(out: Path, _: object) -> None:
        assert not (out / TOTAL_TIME).exists()  # a kill now leaves a run that the same command completes
        raise OSError("no font")

    monkeypatch.setattr("train.curves.draw", draw)
    with Recorder(tmp_path, {}) as recorder:
        recorder.total_time(ClockReading(), 0.0, 0.0, 0)
    assert (tmp_path / TOTAL_TIME).exists()
    assert "no curves.png (OSError: no font)" in capsys.readouterr().err


def test_a_full_disk_is_a_sentence(tmp_path: Path) -> None:
    sentence = r"no room left for the files in .* \(No space left on device\): make some"
    with Path("/dev/full").open("a") as full, Recorder(tmp_path, {}) as recorder:
        recorder._metrics = full
        with pytest.raises(ShardfeedError, match=sentence):
            recorder.metrics("train", 1, 1, loss=1.0)


def test_a_run_that_begins_anew_is_not_taken_for_a_complete_one(tmp_path: Path) -> None:
    (tmp_path / "total_training_time.csv").write_text("of a run whose checkpoints were removed")
    with Recorder(tmp_path, {}):
        assert not (tmp_path / "total_training_time.csv").exists()


def test_each_class_has_a_line_with_its_percentages(tmp_path: Path) -> None:
    path = tmp_path / "per_class.csv"
    write_per_class(path, ["tench", 'crane, "bird"', "never seen"], [3, 50, 0], [1, 25, 0], [2, 50, 0])
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows == [
        {"class": "0", "name": "tench", "images": "3", "top1": "33.33", "top5": "66.67"},
        {"class": "1", "name": 'crane, "bird"', "images": "50", "top1": "50.00", "top5": "100.00"},
        {"class": "2", "name": "never seen", "images": "0", "top1": "", "top5": ""},
    ]


def test_counts_of_another_number_of_classes_are_refused_and_the_old_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "per_class.csv"
    path.write_text("old")
    with pytest.raises(ValueError, match="zip"):
        write_per_class(path, ["a", "b"], [1, 1], [1], [1, 1])
    assert path.read_text() == "old"
