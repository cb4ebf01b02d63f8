"""`--evaluate`: the accuracy of saved weights, also of checkpoints and of several files."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from model import build_model
from model.weights import About, save_weights
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


def evaluate(data: Path, *words: object) -> int:
    """The exit status of --evaluate with these files and options."""
    return main(list(map(str, ["--data", data, "--device", "cpu", "--threads", "1", "--evaluate", *words])))


def test_several_files_are_evaluated_in_a_table(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [runs / "average" / "imagenet_trained_model.pth", runs / "average" / "checkpoints" / "last.pt",
             runs / "plain" / "checkpoints" / "best.pt"]  # fmt: skip
    assert evaluate(runs / "data", *files) == 0
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
    assert evaluate(runs / "data", *files) == 2
    assert "nowhere.pth is not a file: give the .pth file that training wrote" in capsys.readouterr().err


def test_weights_of_other_classes_are_told_by_their_names(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_dataset(tmp_path / "data", {"train": 8, "validation": 7})
    manifest = data / "manifest.json"
    manifest.write_text(manifest.read_text().replace("class 1", "zebra"))
    weights = runs / "average" / "imagenet_trained_model.pth"
    for place, said in ((runs / "data", False), (data, True)):
        assert evaluate(place, weights) == 0
        warning = f"{weights} was trained on other classes: label 1 is 'class 1' there and 'zebra' here"
        assert (warning in capsys.readouterr().err) == said


def test_files_of_different_networks_are_each_evaluated_as_their_own_says(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("class 0", "class 1", "class 2")
    own = {name: tmp_path / f"{name}.pth" for name in ("cnn", "smooth")}
    save_weights(build_model("cnn", 3), own["cnn"], About("cnn", names, size=8, resize=9))
    save_weights(build_model("smooth", 3), own["smooth"], About("smooth", names, size=16, resize=16, flip_tta=True))
    assert evaluate(runs / "data", *own.values()) == 0
    printed = capsys.readouterr()
    assert f"{own['cnn']}: cnn, 3 classes; images: shorter side 9, centre crop 8, mean 0.485" in printed.err
    together = json.loads(printed.out.splitlines()[-1])
    for name, path in own.items():
        size = ["--size", "8", "--val-resize", "9"] if name == "cnn" else ["--size", "16", "--flip-tta"]
        assert evaluate(runs / "data", path, "--model", name, *size) == 0
        printed = capsys.readouterr()
        assert "by the options" not in printed.err
        assert json.loads(printed.out.splitlines()[-1]) == together[str(path)]


def test_an_option_that_overrides_the_file_is_said(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = runs / "plain" / "imagenet_trained_model.pth"
    assert evaluate(runs / "data", weights) == 0
    as_trained = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert evaluate(runs / "data", weights, "--size", "8") == 0
    printed = capsys.readouterr()
    assert "(size 8 by the options and 16 by the file; resize 9 by the options and 16 by the file)" in printed.err
    assert json.loads(printed.out.splitlines()[-1])["loss"] != as_trained["loss"]


def test_a_model_that_is_not_the_file_s_is_refused(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(runs / "data", runs / "plain" / "imagenet_trained_model.pth", "--model", "smooth") == 2
    assert "is of another model, pooled: of the" in (line := capsys.readouterr().err.splitlines()[-1])
    assert line.endswith("leave --model and --blur-pool to the file")


def test_weights_that_say_nothing_are_evaluated_by_the_options(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_weights(build_model("pooled", 3), tmp_path / "bare.pth")
    assert evaluate(runs / "data", tmp_path / "bare.pth", "--model", "pooled", "--size", "16") == 0
    assert f"{tmp_path / 'bare.pth'} does not say what it is of, so the options do: pooled" in capsys.readouterr().err


def test_images_that_the_loader_would_normalise_otherwise_are_refused(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    about = About("pooled", ("a", "b", "c"), size=16, resize=16, mean=(0.5, 0.5, 0.5))
    save_weights(build_model("pooled", 3), tmp_path / "half.pth", about)
    assert evaluate(runs / "data", tmp_path / "half.pth") == 2
    assert "half.pth is of images normalised by mean (0.5, 0.5, 0.5)" in capsys.readouterr().err
