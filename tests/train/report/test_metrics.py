"""The clock and the files of a run."""

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from shards.common.errors import MissingDependency, ShardfeedError
from tests.helpers.training import FixedBatches
from train.config import Config
from train.engine import train_epoch
from train.ranks.distributed import World
from train.report.boards import WANDB_RUN
from train.report.metrics import EPOCH_TIMES, METRICS, Clock, Kept, Reading, Recorder, room_in
from train.run import begin


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
        recorder.metrics("train", 1, 20, loss=1.23456789, lr=1e-5, skipped_steps=3)
        recorder.epoch_time(1, Reading(2.5, 0.1, 100), 0.5, 40.0)
        # Before the end, so that a killed run keeps them.
        lines = (tmp_path / "new/metrics.jsonl").read_text().splitlines()
        assert [json.loads(line) for line in lines] == [
            {"event": "train", "epoch": 1, "step": 20, "loss": 1.23457, "lr": 1e-5, "skipped_steps": 3}
        ]
        assert lines[0].endswith('"skipped_steps": 3}')  # a count is written as one
        recorder.total_time(Reading(2.5, 0.1, 100), 3.5, 40.0)
    with (tmp_path / "new/epoch_times.csv").open() as file:
        assert list(csv.DictReader(file)) == [
            {"epoch": "1", "train_seconds": "2.500", "validation_seconds": "0.500", "images_per_s": "40.0"}
        ]
    with (tmp_path / "new/total_training_time.csv").open() as file:
        assert list(csv.DictReader(file)) == [
            {"train_seconds": "2.500", "wall_seconds": "3.500", "images": "100", "images_per_s": "40.0"}
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
        recorder.epoch_time(1, Reading(), 0.0, 0.0)
        recorder.total_time(Reading(), 0.0, 0.0)
    assert list(tmp_path.iterdir()) == []


def test_images_per_s_leave_out_what_happens_between_epochs(tmp_path: Path) -> None:
    time = Time()

    class SlowBatches(FixedBatches):
        """Each takes a second to come."""

        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            for batch in self.batches:
                time.seconds += 1
                yield batch

    class SlowNetwork(nn.Module):
        """Each batch takes it three seconds."""

        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(3, 10)

        def forward(self, images: Tensor) -> Tensor:
            time.seconds += 3
            logits: Tensor = self.head(images.mean((2, 3)))
            return logits

    config = Config(Path("unused"), batch=4, micro_batch=4, epochs=2, device="cpu", log_every=2)
    batches = SlowBatches([4] * 4, side=8)
    run = begin(SlowNetwork(), config, World(), torch.float32, micro_batches=len(batches))
    run.clock = Clock(time)
    with Recorder(tmp_path, {}) as recorder:
        for epoch in (1, 2):
            train_epoch(run, batches, config, World(), recorder, epoch)
            time.seconds += 1000  # evaluation and saving
    lines = [json.loads(line) for line in (tmp_path / METRICS).read_text().splitlines()]
    assert {line["epoch"] for line in lines} == {1, 2}
    assert {line["images_per_s"] for line in lines} == {1.0}  # 4 images in 1 + 3 seconds
    assert {line["data_wait_percent"] for line in lines} == {25.0}


class Wandb:
    """Stands in for the module: remembers what was asked of it."""

    def __init__(self) -> None:
        self.inits: list[dict[str, Any]] = []
        self.logged: list[dict[str, Any]] = []
        self.exit_codes: list[int] = []
        self.axes: list[tuple[str, str]] = []

    def init(self, **settings: Any) -> Any:
        self.inits.append(settings)
        return SimpleNamespace(
            id=settings["id"] or "abc123",
            log=self.logged.append,
            define_metric=lambda name, step_metric: self.axes.append((name, step_metric)),
            finish=lambda exit_code: self.exit_codes.append(exit_code),
        )


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Wandb:
    module = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def test_wandb_gets_the_numbers_of_every_line(wandb: Wandb, tmp_path: Path) -> None:
    with Recorder(tmp_path, {"epochs": 2, "out": tmp_path}, wandb="imagenet") as recorder:
        recorder.metrics("train", 1, 20, loss=1.5, lr=0.1)
        recorder.metrics("validation", 1, 20, top1=50.0)
    [settings] = wandb.inits
    assert (settings["project"], settings["dir"], settings["id"]) == ("imagenet", str(tmp_path), None)
    assert settings["config"] == {"epochs": 2, "out": str(tmp_path)}
    assert wandb.axes == [("*", "step")]
    assert wandb.logged == [
        {"step": 20, "epoch": 1, "train/loss": 1.5, "train/lr": 0.1},
        {"step": 20, "epoch": 1, "validation/top1": 50.0},
    ]
    assert wandb.exit_codes == [0]


def test_wandb_learns_that_a_run_failed(wandb: Wandb, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Recorder(tmp_path, {}, wandb="imagenet"):
        raise ZeroDivisionError
    assert wandb.exit_codes == [1]


def test_a_run_that_goes_on_is_the_same_run_of_wandb_and_a_new_one_is_not(wandb: Wandb, tmp_path: Path) -> None:
    with Recorder(tmp_path, {}, wandb="imagenet"):
        pass
    assert (tmp_path / WANDB_RUN).read_text() == "abc123\n"
    with Recorder(tmp_path, {}, Kept(5, {METRICS: 0, EPOCH_TIMES: 0}), wandb="imagenet"):
        pass
    with Recorder(tmp_path, {}, wandb="imagenet"):
        pass
    assert [(settings["id"], settings["resume"]) for settings in wandb.inits] == [
        (None, None),
        ("abc123", "allow"),
        (None, None),
    ]


def test_wandb_is_left_alone_unless_asked_for(wandb: Wandb, tmp_path: Path) -> None:
    with Recorder(tmp_path, {}) as recorder:
        recorder.metrics("train", 1, 1, loss=1.0)
    with Recorder(None, {}, wandb="imagenet") as recorder:  # a rank that writes nothing
        recorder.metrics("train", 1, 1, loss=1.0)
    assert wandb.inits == []


def test_wandb_that_is_missing_or_does_not_start_is_a_sentence(
    wandb: Wandb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(**settings: Any) -> None:
        raise RuntimeError("no key")

    monkeypatch.setattr(wandb, "init", fails)
    with pytest.raises(ShardfeedError, match=r"W&B did not start .*no key.*wandb login"):
        Recorder(tmp_path, {}, wandb="imagenet")
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingDependency, match="pip install wandb"):
        Recorder(tmp_path, {}, wandb="imagenet")


def test_a_full_disk_is_a_sentence(tmp_path: Path) -> None:
    sentence = r"no room left for the files in .* \(No space left on device\): make some"
    with Path("/dev/full").open("a") as full, pytest.raises(ShardfeedError, match=sentence):  # noqa: PT012, SIM117
        with room_in(tmp_path), Recorder(tmp_path, {}) as recorder:
            recorder._metrics = full
            recorder.metrics("train", 1, 1, loss=1.0)


def test_a_run_that_begins_anew_is_not_taken_for_a_complete_one(tmp_path: Path) -> None:
    (tmp_path / "total_training_time.csv").write_text("of a run whose checkpoints were removed")
    with Recorder(tmp_path, {}):
        assert not (tmp_path / "total_training_time.csv").exists()
