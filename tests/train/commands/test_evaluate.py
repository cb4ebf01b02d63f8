"""`--evaluate`: the accuracy of saved weights, also of checkpoints and of several files."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from model import build_model
from model.weights import About, save_weights
from preprocess.__main__ import main as preprocess
from shards import Loader
from shards.common.errors import UsageError
from shards.dataset import Split, open_dataset
from tests.conftest import jpeg, photo, write_split
from tests.helpers.resume import left_behind, tiny_models, train_until
from tests.helpers.training import write_dataset
from train.__main__ import main
from train.checkpoints.weights import load_weights
from train.commands.real import with_real_labels
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


def test_images_are_normalised_and_resized_as_the_file_says(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("class 0", "class 1", "class 2")
    plain = About("pooled", names, size=12, resize=14)
    other = dataclasses.replace(plain, mean=(0.5, 0.5, 0.5), interpolation="bicubic")
    network, losses = build_model("pooled", 3), []
    for number, about in enumerate((plain, other)):
        save_weights(network, tmp_path / f"{number}.pth", about)
        assert evaluate(runs / "data", tmp_path / f"{number}.pth") == 0
        printed = capsys.readouterr()
        assert "by the options" not in printed.err
        losses.append(json.loads(printed.out.splitlines()[-1])["loss"])
    assert "shorter side 14 by bicubic, centre crop 12, mean 0.5 0.5 0.5" in printed.err
    assert losses[0] != losses[1]
    assert evaluate(runs / "data", tmp_path / "1.pth", "--interpolation", "bilinear") == 0
    assert "(interpolation bilinear by the options and bicubic by the file)" in capsys.readouterr().err


CLASSES = ("ant", "bee", "cat")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A file of weights of three classes, for images of 16 pixels."""
    save_weights(build_model("pooled", 3), tmp_path / "weights.pth", About("pooled", CLASSES, size=16, resize=16))
    return tmp_path / "weights.pth"


def named(root: Path, *names: str, split: str = "validation") -> Path:
    """A data set of twelve images of these classes."""
    data = write_dataset(root, {split: 12}, classes=len(names))
    manifest = data / "manifest.json"
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**content, "class_names": names}))
    return data


def on_sets(weights: Path, *sets: object) -> int:
    return main(list(map(str, ["--device", "cpu", "--threads", "1", "--evaluate", weights, "--eval-set", *sets])))


def test_classes_of_other_sets_are_matched_by_name_or_number(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    same = named(tmp_path / "same", *CLASSES)
    others = {
        "turned": named(tmp_path / "turned", "cat", "ant", "bee"),
        "numbers": named(tmp_path / "numbers", "2", "0", "1", split="train"),
        "words": named(tmp_path / "words", "cat: a pet", "ant, an insect", "bee"),
    }
    assert on_sets(weights, same, *others.values()) == 0
    reached = json.loads(capsys.readouterr().out.splitlines()[-1])[str(weights)]
    assert set(reached) == {"same", *others}
    split = open_dataset(same)["validation"]
    network = build_model("pooled", 3)
    load_weights(network, weights)
    with Loader(split, batch_size=12, train=False, size=16) as loader:
        [(images, labels)] = list(loader)
    logits = network.eval()(images)
    for name, shift in (("same", 0), *((other, 2) for other in others)):
        # Class k of the others is class (k + 2) % 3 of the weights.
        expected = (logits.argmax(1) == (labels + shift) % 3).float().mean().item()
        assert reached[name]["top1"] == pytest.approx(100 * expected)


def test_of_fewer_classes_only_the_logits_are_compared(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two = named(tmp_path / "two", "ant", "cat")
    assert on_sets(weights, two) == 0
    printed = capsys.readouterr()
    assert f"{two}: 2 of the 3 classes of {weights}; only their logits are compared" in printed.err
    network = build_model("pooled", 3)
    load_weights(network, weights)
    with Loader(open_dataset(two)["validation"], batch_size=12, train=False, size=16) as loader:
        [(images, labels)] = list(loader)
    best = network.eval()(images)[:, [0, 2]].argmax(1)
    assert json.loads(printed.out.splitlines()[-1])["top1"] == pytest.approx(
        100 * (best == labels).float().mean().item()
    )


def test_sets_of_one_name_are_told_apart(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = [named(tmp_path / where / "val", *CLASSES) for where in ("one", "other")]
    assert on_sets(weights, *places) == 0
    printed = capsys.readouterr()
    assert printed.err.count(f"{weights}: pooled, 3 classes") == 1
    assert list(json.loads(printed.out.splitlines()[-1])[str(weights)]) == list(map(str, places))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--eval-set", "nowhere"], "nowhere is not a directory"),
        (
            ["--data", "somewhere", "--eval-set", "nowhere"],
            "--eval-set is for --evaluate, and takes the place of --data",
        ),
    ],
)
def test_sets_that_are_not_there(
    words: list[str], told: str, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--evaluate", str(weights), *words]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--subset", "0.5"], ["--val-split", "test"], ["--val-fraction", "0.1"]])
def test_options_that_choose_a_part_do_not_go_with_other_sets(
    option: list[str], weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--evaluate", str(weights), "--eval-set", "here", *option]) == 2
    assert "--eval-set takes whole sets: leave out" in capsys.readouterr().err


def test_a_set_of_other_classes_or_unclear_splits_is_refused(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert on_sets(weights, named(tmp_path / "other", "ant", "wolf")) == 2
    said = capsys.readouterr().err
    assert f"{weights} is for 3 classes, but {tmp_path / 'other'} has 2 ('wolf' is none of them); weights that" in said
    assert "trained with --class-map, or --subset and a list of classes, need --data and that option" in said
    unclear = write_dataset(tmp_path / "unclear", {"one": 3, "two": 3})
    assert on_sets(weights, unclear) == 2
    assert "has none of the splits validation, val, valid, dev, test, and several others" in capsys.readouterr().err


def numbered(root: Path, numbers: list[int]) -> Path:
    """A validation split of three classes, of which a kept column says which images of ILSVRC2012 it has."""
    pictures = root / "pictures"
    for place, number in enumerate(numbers):
        path = pictures / "val" / CLASSES[place % 3] / f"ILSVRC2012_val_{number:08d}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(photo(16, 16, number)))
    assert (
        preprocess(list(map(str, [pictures, root / "out", "--short-side", 16, "--workers", 1, "--keep", "path"]))) == 0
    )
    return root / "out"


def test_real_labels_count_every_right_class_and_leave_out_images_without_any(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = numbered(tmp_path, [1, 2, 4, 5, 6])
    real = tmp_path / "real.json"
    real.write_text(json.dumps([[0, 1], [], [0], [2], [0, 1, 2], [1]]))
    words = ["--device", "cpu", "--threads", "1", "--evaluate", weights, "--eval-set", data, "--real-labels", real]
    capsys.readouterr()
    assert main(list(map(str, words))) == 0
    *_, figures, last = capsys.readouterr().out.splitlines()
    assert figures.startswith("out, ReaL labels of 4 images: loss ")
    found = json.loads(last)
    split = open_dataset(data)["val"]
    network = build_model("pooled", 3)
    load_weights(network, weights)
    with Loader(split, batch_size=5, train=False, size=16) as loader:
        [(images, _)] = list(loader)
    right = {1: {0, 1}, 4: {2}, 5: {0, 1, 2}, 6: {1}}
    numbers = [int(path[-13:-5]) for path in split.column("path")]
    guesses = dict(zip(numbers, network.eval()(images).argmax(1).tolist(), strict=True))
    assert found["images"] == 4
    assert found["top1"] == pytest.approx(100 * sum(guesses[number] in right[number] for number in right) / 4)


def test_a_set_without_real_labels_is_refused_before_another_is_evaluated(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "real.json").write_text("[[0], [1]]")
    sets = [numbered(tmp_path, [1, 2]), named(tmp_path / "other", *CLASSES)]
    capsys.readouterr()
    assert on_sets(weights, *sets, "--real-labels", tmp_path / "real.json") == 2
    said = capsys.readouterr().err
    assert f"{sets[1]} does not say which images of ILSVRC2012 it has" in said
    assert str(weights) not in said  # what is said when a file is read


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "holds no ReaL labels"),
        ('[[0], "a"]', "holds no ReaL labels"),
        ("[[true]]", "holds no ReaL labels"),
        ("[[0]]", "has the labels of 1 image, and"),
        ("[[0], [7]]", "has a class 7, and"),
        ("[[], []]", "has no label for an image of"),
    ],
)
def test_labels_that_are_none_are_refused(
    content: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = write_split(tmp_path / "data", [jpeg(photo(16, 16))] * 2, short_side=16, classes=3)
    keys = np.array(["ILSVRC2012_val_00000001", "ILSVRC2012_val_00000002"], object)
    real = tmp_path / "real.json"
    real.write_text(content)
    monkeypatch.setattr(Split, "keys", lambda _: keys)
    with pytest.raises(UsageError, match=told):
        with_real_labels(split, real)


def test_images_of_unknown_numbers_have_no_real_labels(tmp_path: Path) -> None:
    split = write_split(tmp_path / "data", [jpeg(photo(16, 16))], short_side=16, classes=3)
    (tmp_path / "real.json").write_text("[[0]]")
    with pytest.raises(UsageError, match="does not say which images of ILSVRC2012 it has: make it with"):
        with_real_labels(split, tmp_path / "real.json")
