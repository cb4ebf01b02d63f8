"""Trained weights on disk: what is written, and what is refused with which sentence."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from model import build_model
from model.weights import About, load_model
from shards.common.errors import ShardfeedError, UsageError
from shards.dataset import open_dataset
from tests.helpers.resume import tiny, tiny_models
from tests.helpers.training import write_dataset
from train.checkpoints.weights import WEIGHTS, describe, load_weights, save_weights
from train.options import Pixels


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """The weights of a channels-last cnn for 10 classes."""
    path = tmp_path / WEIGHTS
    save_weights(build_model("cnn", 10).to(memory_format=torch.channels_last), path)
    return path


def test_saved_weights_come_back(tmp_path: Path) -> None:
    torch.manual_seed(0)
    first, second = build_model("cnn", 4), build_model("cnn", 4)
    save_weights(first, tmp_path / WEIGHTS)
    load_weights(second, tmp_path / WEIGHTS)
    expected = first.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in second.state_dict().items())


def test_the_file_is_a_plain_state_dict_of_contiguous_tensors(saved: Path) -> None:
    state = torch.load(saved, weights_only=True)
    assert state.keys() == build_model("cnn", 10).state_dict().keys()
    assert all(value.is_contiguous() and value.device.type == "cpu" for value in state.values())
    assert [path.name for path in saved.parent.iterdir()] == [WEIGHTS]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.pth is not a file"):
        load_weights(nn.Linear(1, 1), tmp_path / "nowhere.pth")


@pytest.mark.parametrize("kept", [0, 1, 1000, -1000])
def test_a_truncated_file_is_called_damaged(saved: Path, kept: int) -> None:
    saved.write_bytes(saved.read_bytes()[:kept])
    with pytest.raises(ShardfeedError, match=r"trained_model\.pth is damaged"):
        load_weights(build_model("cnn", 10), saved)


def test_a_changed_bit_is_called_damage(saved: Path) -> None:
    data = bytearray(saved.read_bytes())
    data[len(data) // 2] ^= 1
    saved.write_bytes(data)
    with pytest.raises(
        ShardfeedError, match=r"trained_model\.pth is damaged: the checksum of .*/data/\d+ in it is wrong"
    ):
        load_weights(build_model("cnn", 10), saved)


def test_a_pickle_that_would_run_code_is_not_run(tmp_path: Path) -> None:
    class Touches:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "was_run",))

    torch.save({"weight": Touches()}, tmp_path / "evil.pth")
    with pytest.raises(ShardfeedError, match="holds more than tensors and plain values"):
        load_weights(nn.Linear(1, 1), tmp_path / "evil.pth")
    assert not (tmp_path / "was_run").exists()


def test_a_file_that_is_no_state_dict_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "state.pth")
    with pytest.raises(ShardfeedError, match="no plain state dict"):
        load_weights(nn.Linear(1, 1), tmp_path / "state.pth")


def test_another_model_is_told_by_its_layers(saved: Path) -> None:
    with pytest.raises(UsageError, match=r"of another model: .*; name its model with --model"):
        load_weights(build_model("resnet18", 10), saved)


def test_another_class_count_is_told_in_numbers(saved: Path) -> None:
    with pytest.raises(UsageError, match=r"is for 10 classes, but the data set has 1000$"):
        load_weights(build_model("cnn", 1000), saved)


def test_another_width_is_not_taken_for_a_class_count(tmp_path: Path) -> None:
    save_weights(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), tmp_path / WEIGHTS)
    with pytest.raises(UsageError, match=r"0\.weight has shape \(4, 3\) instead of \(5, 3\)"):
        load_weights(nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2)), tmp_path / WEIGHTS)


def test_another_model_is_named_where_the_file_names_its_own(tmp_path: Path) -> None:
    about = About("resnet18", ("a", "b"), size=32, resize=37, blur_pool=True)
    save_weights(build_model("resnet18", 2, blur_pool=True), tmp_path / WEIGHTS, about)
    with pytest.raises(UsageError, match="is of another model, resnet18 with blur pooling: of the"):
        load_weights(build_model("resnet18", 2), tmp_path / WEIGHTS)
    load_weights(build_model("resnet18", 2, blur_pool=True), tmp_path / WEIGHTS)


@pytest.mark.parametrize(
    ("given", "side", "expected"),
    [(None, 16, 16), (None, 64, 37), (40, 16, 40)],
    ids=["no more than is stored", "in proportion", "as asked"],
)
def test_what_is_said_beside_the_weights(given: int | None, side: int, expected: int, tmp_path: Path) -> None:
    held_out = open_dataset(write_dataset(tmp_path, {"validation": 3}, side=side))["validation"]
    size = 32 if side > 32 else 16
    about = describe(held_out, model="cnn", size=size, resize=given)
    assert about == About("cnn", ("class 0", "class 1", "class 2"), size=size, resize=expected)
    bicubic = describe(held_out, model="cnn", size=size, pixels=Pixels(interpolation="bicubic"))
    assert (about.interpolation, bicubic.interpolation) == ("bilinear", "bicubic")


def test_the_weights_in_a_checkpoint_can_be_loaded(whole: Path) -> None:
    network = tiny(3)
    load_weights(network, whole / "checkpoints" / "last.pt")
    saved = torch.load(whole / "imagenet_trained_model.pth", weights_only=True)
    assert all(torch.equal(value, saved[name]) for name, value in network.state_dict().items())


def test_a_checkpoint_alone_gives_the_network_and_what_it_is(whole: Path) -> None:
    with tiny_models():
        network, about = load_model(whole / "checkpoints" / "last.pt")
        expected, same = load_model(whole / "imagenet_trained_model.pth")
    assert about == same
    saved = expected.state_dict()
    assert all(torch.equal(value, saved[name]) for name, value in network.state_dict().items())
