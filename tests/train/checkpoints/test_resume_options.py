"""Whatever is switched on, a run that is killed and gone on with ends with the same bits."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.helpers.resume import Killed, assert_same, left_behind, tiny_models, train_until
from tests.helpers.training import write_dataset
from train.__main__ import main
from train.checkpoints.resume import read_checkpoint
from train.config import Config
from train.options import Feeding, Mixing, Sizes, Update

# 9 micro-batches of 4 in an epoch of 38 images: 4 whole steps, and one of one micro-batch.
BASE = Config(Path("unused"), model="pooled", size=16, batch=8, micro_batch=4, epochs=3, device="cpu", threads=1)
EVERYTHING = dataclasses.replace(
    BASE,
    crop="rrc",
    label_smoothing=0.1,
    update=Update(optimizer="sgd", decay="kernels", schedule="linear", drop_last=True, ema=0.8, ema_every=2),
    sizes=Sizes(start_size=8, grow_from=0, grow_until=1, val_size=12, flip_tta=True),
    mixing=Mixing(mixup=0.3, cutmix=1.0, erase=0.4),
    feeding=Feeding(augment="trivial"),
)
CASES = {
    "everything": EVERYTHING,
    "average": dataclasses.replace(BASE, update=Update(ema=0.9)),
    "bfloat16": dataclasses.replace(BASE, precision="bfloat16", mixing=Mixing(mixup=0.3)),
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def _pooled_exists() -> Iterator[None]:
    with tiny_models():
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data, and runs that nothing disturbed, in a directory for each case."""
    root = tmp_path_factory.mktemp("options")
    data = write_dataset(root / "data", {"train": 38, "validation": 7})
    torch.set_num_threads(1)
    for name, case in CASES.items():
        train_until(dataclasses.replace(case, data=data, out=root / name))
    return root


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("kill", "saves"), [(3, {2}), (6, {1, 3}), (7, {5, 6}), (12, {9, 10})])
def test_a_run_killed_at_a_step_ends_with_the_same_bits(
    case: str, kill: int, saves: set[int], whole: Path, tmp_path: Path
) -> None:
    again = dataclasses.replace(CASES[case], data=whole / "data", out=tmp_path)
    with pytest.raises(Killed):
        train_until(again, kill, saves)
    train_until(again)
    assert_same(tmp_path, whole / case)


def test_images_grow_between_epochs_and_incomplete_steps_are_left_out(whole: Path) -> None:
    steps = [line["step"] for line in left_behind(whole / "everything")["lines"] if line["event"] == "validation"]
    assert steps == [4, 8, 12]
    assert left_behind(whole / "everything")["images"] == str(3 * 32)


def test_the_average_is_what_is_saved_and_evaluated(whole: Path) -> None:
    state = read_checkpoint(whole / "average" / "checkpoints" / "last.pt")
    saved = left_behind(whole / "average")["weights"]
    assert all(torch.equal(value, state["average"][f"module.{name}"]) for name, value in saved.items())
    assert not torch.equal(saved["6.weight"], state["network"]["6.weight"])


def test_the_average_follows_the_weights_by_its_decay(whole: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(CASES["average"], data=whole / "data", out=tmp_path)
    seen = []
    for step in (2, 3):
        with pytest.raises(Killed):
            train_until(config, step + 1, saves={step})
        seen.append(read_checkpoint(tmp_path / "checkpoints" / "last.pt"))
    before, after = (state["average"]["module.6.weight"] for state in seen)
    torch.testing.assert_close(after, 0.9 * before + 0.1 * seen[1]["network"]["6.weight"])


@pytest.mark.usefixtures("_pooled_exists")
def test_several_files_are_evaluated_in_a_table(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [whole / "average" / "imagenet_trained_model.pth", whole / "average" / "checkpoints" / "last.pt",
             whole / "everything" / "checkpoints" / "best.pt"]  # fmt: skip
    words = ["--data", whole / "data", "--model", "pooled", "--size", "16", "--device", "cpu", "--threads", "1"]
    assert main(list(map(str, [*words, "--evaluate", *files]))) == 0
    *table, last = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in table] == ["weights", *map(str, files)]
    assert any(line.endswith("best") for line in table)
    reached = json.loads(last)
    assert list(reached) == [str(path) for path in files]
    # The averaged weights are in the checkpoint too, and evaluate to the same.
    assert reached[str(files[0])] == reached[str(files[1])]
    line = [line for line in left_behind(whole / "average")["lines"] if line["event"] == "validation"][-1]
    assert reached[str(files[0])]["loss"] == pytest.approx(line["loss"], rel=1e-5)


@pytest.mark.usefixtures("_pooled_exists")
def test_a_missing_file_is_told_before_the_others_are_evaluated(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delattr("train.commands.evaluate.evaluate")
    files = [whole / "average" / "imagenet_trained_model.pth", tmp_path / "nowhere.pth"]
    words = ["--data", whole / "data", "--model", "pooled", "--size", "16", "--device", "cpu", "--threads", "1"]
    assert main(list(map(str, [*words, "--evaluate", *files]))) == 2
    assert "nowhere.pth is not a file: give the .pth file that training wrote" in capsys.readouterr().err


@pytest.mark.usefixtures("_pooled_exists")
def test_weights_of_other_classes_are_told_by_their_names(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_dataset(tmp_path / "data", {"train": 8, "validation": 7})
    manifest = data / "manifest.json"
    manifest.write_text(manifest.read_text().replace("class 1", "zebra"))
    weights = whole / "average" / "imagenet_trained_model.pth"
    for place, said in ((whole / "data", False), (data, True)):
        words = ["--data", place, "--model", "pooled", "--size", "16", "--device", "cpu", "--threads", "1"]
        assert main(list(map(str, [*words, "--evaluate", weights]))) == 0
        warning = f"{weights} was trained on other classes: label 1 is 'class 1' there and 'zebra' here"
        assert (warning in capsys.readouterr().err) == said
