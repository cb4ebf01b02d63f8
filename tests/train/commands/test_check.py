"""`--check`: a line for each thing that is ready, and the first that is not."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

import train.run
from shards.format.index import Index
from shards.format.layout import INDEX, split_dir
from tests.helpers.training import write_dataset
from train.__main__ import main

NAMES = ["imports and devices", "data set opens", "batch shape", "training steps", "peak memory"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "data", {"train": 12, "validation": 5})


def check(data: Path, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, list[str], str]:
    """The exit status, the names of the checks that passed, and what went to stderr."""
    fixed = ["--check", "--device", "cpu", "--size", "16", "--batch-size", "4", "--threads", "1"]
    status = main(["--data", str(data), *fixed, *more])
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert all(line.startswith("ok  ") for line in lines)
    return status, [line.removeprefix("ok  ").partition(":")[0] for line in lines], captured.err


def test_a_line_for_each_check_and_nothing_written(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert check(data, capsys) == (0, NAMES, "")
    assert list((tmp_path / "empty").iterdir()) == []


def test_a_directory_without_a_data_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, names, error = check(tmp_path, capsys)
    assert (status, names) == (1, NAMES[:1])
    assert "check failed: data set opens:" in error
    assert "manifest.json" in error


def test_a_batch_larger_than_the_split(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, names, error = check(data, capsys, "--batch-size", "13")
    assert (status, names) == (1, NAMES[:2])
    assert "check failed: batch shape: the split train has 12 samples" in error


def test_a_label_without_a_class(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = split_dir(data, "train") / INDEX
    index = Index.read(path, keys=True)
    dataclasses.replace(index, label=np.full_like(index.label, 7)).write(path)
    status, names, error = check(data, capsys)
    assert (status, names) == (1, NAMES[:1])
    assert "check failed: data set opens:" in error
    assert "row 0 has label 7" in error


def test_a_loss_that_is_not_finite(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object) -> torch.nn.Module:
        linear = torch.nn.Linear(3 * 16 * 16, 3)
        torch.nn.init.constant_(linear.weight, float("nan"))
        return torch.nn.Sequential(torch.nn.Flatten(), linear)

    monkeypatch.setattr(train.run, "make_network", broken)
    status, names, error = check(data, capsys)
    assert (status, names) == (1, NAMES[:3])
    assert "check failed: training steps: the loss is nan at optimizer step 1" in error
