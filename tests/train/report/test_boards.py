"""W&B: which numbers it gets, and which run they belong to."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from shards.common.errors import MissingDependency, ShardfeedError
from train.curves import METRICS
from train.report.boards import WANDB_RUN
from train.report.metrics import EPOCH_TIMES, LogPosition, Recorder


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
    with Recorder(tmp_path, {}, LogPosition(5, {METRICS: 0, EPOCH_TIMES: 0}), wandb="imagenet"):
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
