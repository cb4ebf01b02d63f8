"""Runs that are cut short at chosen steps, and comparing the files that runs leave."""

import csv
import dataclasses
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import model
import train.curves
import train.engine
import train.step
from model import names
from tests.helpers.training import read_lines
from train.checkpoints.saver import CheckpointSaver
from train.config import Config
from train.report.result import Result

# Values in the log that differ between two equal runs.
MEASURED = {"time", "images_per_s", "data_wait_percent"}


class Killed(BaseException):
    """The process would be gone now."""


def tiny(num_classes: int) -> nn.Module:
    """Small, with layers that have state besides weights: dropout and batch norm."""
    layers = [nn.Conv2d(3, 4, 3, stride=4, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(64, num_classes))


def smooth(num_classes: int) -> nn.Module:
    """Without dropout, batch norm or kinks: trained the same on any number of ranks, up to rounding."""
    blocks = nn.Sequential(nn.Conv2d(3, 4, 3, stride=4), nn.Tanh())
    return nn.Sequential(blocks, nn.Flatten(), nn.Linear(64, num_classes))


def pooled(num_classes: int) -> nn.Module:
    """For images of any size, with batch norm and dropout."""
    layers = [nn.Conv2d(3, 8, 3, stride=2, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(8, num_classes))


@contextmanager
def tiny_models() -> Iterator[pytest.MonkeyPatch]:
    """`--model tiny`, `smooth` and `pooled` exist, and no run draws its curves: that takes longer than training them.

    Other changes through the yielded monkeypatch are undone too.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train.curves, "draw", lambda *_: None)
        patch.setattr(names, "NAMES", (*names.NAMES, "tiny", "smooth", "pooled"))
        patch.setitem(model.MODELS, "tiny", tiny)
        patch.setitem(model.MODELS, "smooth", smooth)
        patch.setitem(model.MODELS, "pooled", pooled)
        yield patch


def train_until(config: Config, step: int | None = None, saves: Collection[int] = ()) -> Result:
    """Trains `config`, saving inside epochs after the steps `saves`; raises Killed in place of step `step`."""
    taken = [0]
    take: Callable[..., Any] = train.step.update

    def counted(run: Any, *args: Any) -> Any:
        if step is not None and run.step + 1 >= step:
            raise Killed
        taken[0] = run.step + 1
        return take(run, *args)

    with tiny_models() as patch:
        patch.setattr(train.engine, "update", counted)
        patch.setattr(CheckpointSaver, "_is_due", lambda saver, now: taken[0] in saves)
        return train.engine.train(config)


def killed(config: Config, out: Path, step: int = 9, saves: tuple[int, ...] = (3, 7)) -> Config:
    """Kills a run in `out` that saves after some steps; returns its configuration."""
    again = dataclasses.replace(config, out=out)
    with pytest.raises(Killed):
        train_until(again, step, saves)
    return again


def left_behind(out: Path) -> dict[str, Any]:
    """What two equal runs have in common: weights, lines of the log, epochs, images."""
    lines = read_lines(out / "metrics.jsonl")
    with (out / "epoch_times.csv").open() as file:
        epochs = [row["epoch"] for row in csv.DictReader(file)]
    with (out / "total_training_time.csv").open() as file:
        images = next(csv.DictReader(file))["images"]
    return {
        "lines": [{name: value for name, value in line.items() if name not in MEASURED} for line in lines],
        "epochs": epochs,
        "images": images,
        "weights": torch.load(out / "imagenet_trained_model.pth", weights_only=True),
    }


def assert_same(out: Path, expected: Path) -> None:
    """Two runs left the same files, bit for bit."""
    ours, theirs = left_behind(out), left_behind(expected)
    weights, others = ours.pop("weights"), theirs.pop("weights")
    assert ours == theirs
    assert weights.keys() == others.keys()
    assert [name for name in weights if not torch.equal(weights[name], others[name])] == []
