"""`--check`: a line for each thing that is ready, and the first that is not."""

import contextlib
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import shards.loader  # noqa: F401 - that it is loaded is said only where it is not yet
import train.commands.check
import train.run
from model import build_model
from shards.format.index import Index
from shards.format.layout import INDEX, split_dir
from tests.helpers.ranks import on_two_ranks
from tests.helpers.training import write_dataset
from train.__main__ import main
from train.config import Config
from train.engine import train_epoch
from train.run import Run

NAMES = [
    "imports and devices", "data set opens", "model and batch", "ranks", "--out", "batch shape", "training steps",
]  # fmt: skip


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "data", {"train": 12, "validation": 5})


def check(data: Path, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, list[str], str]:
    """The exit status, the names of the checks that passed, and what went to stderr."""
    fixed = ["--check", "--device", "cpu", "--size", "16", "--batch-size", "4", "--threads", "1"]
    out = ["--out", str(data.parent / "new" / "out")]
    status = main(["--data", str(data), *out, *fixed, *more])
    captured = capsys.readouterr()
    assert not (data.parent / "new").exists()
    lines = [line for line in captured.out.splitlines() if not line.startswith("note  ")]
    if status == 0:
        assert json.loads(lines.pop()) == {"check": "passed"}
    assert all(line.startswith("ok  ") for line in lines)
    return status, [line.removeprefix("ok  ").partition(":")[0] for line in lines], captured.err


def test_a_line_for_each_check_and_nothing_written(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(data.parent.rglob("*"))
    assert check(data, capsys) == (0, NAMES, "")
    assert sorted(data.parent.rglob("*")) == before


def test_on_a_cpu_two_images_of_each_micro_batch_are_trained_on(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[int] = []

    def counting(run: Run, batches: list[tuple[torch.Tensor, torch.Tensor]], *args: object, **more: object) -> float:
        trained.extend(len(labels) for _, labels in batches)
        return train_epoch(run, batches, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr("train.commands.check.train_epoch", counting)
    words = ["--data", str(data), "--check", "--device", "cpu", "--size", "16", "--batch", "12", "--micro-batch", "4"]
    assert main([*words, "--out", str(data / "out")]) == 0
    assert trained == [2, 2, 2]  # of the split's three micro-batches of 4


def test_a_directory_without_a_data_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, names, error = check(tmp_path, capsys)
    assert (status, names) == (2, [])
    assert "manifest.json" in error


def test_a_batch_larger_than_the_split(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, names, error = check(data, capsys, "--batch-size", "13")
    assert (status, names) == (2, NAMES[:5])
    assert "check failed: batch shape: an epoch of the split train has 12 samples" in error


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
    assert (status, names) == (1, NAMES[:6])
    assert "check failed: training steps: the loss is nan at optimizer step 1" in error


def test_an_epoch_without_a_step(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, names, error = check(data, capsys, "--batch", "16", "--micro-batch", "4", "--drop-last")
    assert (status, names) == (2, NAMES[:5])
    assert "check failed: batch shape: an epoch has 12 images in whole micro-batches" in error


def test_an_evaluation_that_does_not_fit_the_images(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, names, error = check(data, capsys, "--val-size", "20")
    assert (status, names) == (2, [])
    assert "a crop of 20 pixels does not fit into images whose shorter side is 16: choose --val-size 16" in error


def test_a_directory_that_cannot_be_written(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, names, error = check(data, capsys, "--out", "/proc/here")
    assert (status, names) == (2, [])
    assert "--out /proc/here cannot be written, because no file can be made in /proc" in error


def test_results_of_another_run(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "imagenet_trained_model.pth").touch()
    status, names, error = check(data, capsys, "--out", str(tmp_path))
    assert (status, names) == (2, [])
    assert "exists already" in error


def test_a_disk_without_room_for_the_checkpoints(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = sum(each.nbytes for each in build_model("cnn", 3).state_dict().values())
    least = 4 * 3 * weights + 2 * weights  # four checkpoints, of weights and AdamW's two moments, and the weights
    for free, passes in ((least, True), (least - 1, False)):
        monkeypatch.setattr("shards.common.space.free_bytes", lambda place, free=free: (free, place.parent.parent))
        status, _, error = check(data, capsys)
        assert (status == 0) == passes
        assert passes or "check failed: --out: the run needs about " in error


def test_two_ranks_exchange_a_number(tmp_path: Path) -> None:
    on_two_ranks([TwoRanks(write_dataset(tmp_path / "data", {"train": 12, "validation": 5}), tmp_path)])
    assert "ok  ranks: 2, which exchanged a number over gloo\n" in (tmp_path / "0.txt").read_text()
    assert (tmp_path / "1.txt").read_text() == ""


@dataclasses.dataclass
class TwoRanks:
    """Runs the check on each of two ranks, and keeps what it prints."""

    data: Path
    out: Path

    def __call__(self, rank: int) -> None:
        with (self.out / f"{rank}.txt").open("w") as file, contextlib.redirect_stdout(file):
            config = Config(self.data, out=self.out / "run", model="pooled", size=16, batch=4, device="cpu", threads=1)
            train.commands.check.check(config)


def test_a_shard_that_was_cut_off_names_the_repair(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tar = next(split_dir(data, "validation").glob("*.tar"))
    tar.write_bytes(tar.read_bytes()[:-512])
    status, names, error = check(data, capsys)
    assert (status, names) == (1, NAMES[:1])
    assert "check failed: data set opens: shard " in error
    assert f"`python -m preprocess SOURCE {data} --repair`" in error
