"""`--evaluate`: the accuracy of saved weights, also of checkpoints and of several files."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.resume import left_behind, tiny_models, train_until
from tests.helpers.training import write_dataset
from train.__main__ import main
from train.config import Config
from train.options import Update

BASE = Config(Path("unused"), model="pooled", size=16, batch=8, micro_batch=4, epochs=2, device="cpu", threads=1)


@pytest.fixture(autouse=True)
def _pooled_exists() -> Iterator[None]:
    with tiny_models():
        yield


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set, and in a directory each a run without and one with a moving average of the weights."""
    root = tmp_path_factory.mktemp("runs")
    data = write_dataset(root / "data", {"train": 38, "validation": 7})
    for name, ema in (("plain", 0.0), ("average", 0.9)):
        train_until(dataclasses.replace(BASE, data=data, out=root / name, update=Update(ema=ema)))
    return root


def test_several_files_are_evaluated_in_a_table(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [runs / "average" / "imagenet_trained_model.pth", runs / "average" / "checkpoints" / "last.pt",
             runs / "plain" / "checkpoints" / "best.pt"]  # fmt: skip
    words = ["--data", runs / "data", "--model", "pooled", "--size", "16", "--device", "cpu", "--threads", "1"]
    assert main(list(map(str, [*words, "--evaluate", *files]))) == 0
    *table, last = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in table] == ["weights", *map(str, files)]
    assert any(line.endswith("best") for line in table)
    reached = json.loads(last)
    assert list(reached) == [str(path) for path in files]
    # The averaged weights are in the checkpoint too, and evaluate to the same.
    assert reached[str(files[0])] == reached[str(files[1])]
    line = [line for line in left_behind(runs / "average")["lines"] if line["event"] == "validation"][-1]
    assert reached[str(files[0])]["loss"] == pytest.approx(line["loss"], rel=1e-5)


def test_a_missing_file_is_told_before_the_others_are_evaluated(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delattr("train.commands.evaluate.evaluate")
    files = [runs / "average" / "imagenet_trained_model.pth", tmp_path / "nowhere.pth"]
    words = ["--data", runs / "data", "--model", "pooled", "--size", "16", "--device", "cpu", "--threads", "1"]
    assert main(list(map(str, [*words, "--evaluate", *files]))) == 2
    assert "nowhere.pth is not a file: give the .pth file that training wrote" in capsys.readouterr().err


def test_weights_of_other_classes_are_told_by_their_names(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_dataset(tmp_path / "data", {"train": 8, "validation": 7})
    manifest = data / "manifest.json"
    manifest.write_text(manifest.read_text().replace("class 1", "zebra"))
    weights = runs / "average" / "imagenet_trained_model.pth"
    for place, said in ((runs / "data", False), (data, True)):
        words = ["--data", place, "--model", "pooled", "--size", "16", "--device", "cpu", "--threads", "1"]
        assert main(list(map(str, [*words, "--evaluate", weights]))) == 0
        warning = f"{weights} was trained on other classes: label 1 is 'class 1' there and 'zebra' here"
        assert (warning in capsys.readouterr().err) == said
