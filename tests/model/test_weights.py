"""What stands beside the weights, and the network that comes out of a file alone."""

from pathlib import Path

import pytest
import torch
from torch import nn

from model import build_model
from model.weights import About, load_model, save_weights
from shards.common.errors import ShardfeedError, UsageError
from shards.decode import MEAN, STD

ABOUT = About("resnet18", ("cat", "dog", "bird"), size=32, resize=36, blur_pool=True)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A blurred resnet18 for three classes."""
    torch.manual_seed(0)
    path = tmp_path / "model.pth"
    save_weights(build_model("resnet18", 3, blur_pool=True), path, ABOUT)
    return path


def test_the_file_alone_gives_the_network_and_what_it_is(saved: Path) -> None:
    torch.manual_seed(0)
    expected = build_model("resnet18", 3, blur_pool=True).eval()
    network, about = load_model(saved)
    assert about == ABOUT
    assert (about.mean, about.std) == (MEAN, STD)
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(network(images), expected(images))


def test_the_file_is_still_a_plain_state_dict(saved: Path) -> None:
    state = torch.load(saved, weights_only=True)
    build_model("resnet18", 3, blur_pool=True).load_state_dict(state)
    assert all(value.is_contiguous() and value.device.type == "cpu" for value in state.values())


def test_weights_that_say_nothing_of_themselves_are_refused(tmp_path: Path) -> None:
    save_weights(nn.Linear(1, 1), tmp_path / "bare.pth")
    torch.save({"state": 1}, tmp_path / "other.pth")
    for name in ("bare.pth", "other.pth"):
        with pytest.raises(UsageError, match=f"{name} does not say which model and classes"):
            load_model(tmp_path / name)


def test_an_unknown_model_is_named_with_the_file(tmp_path: Path) -> None:
    save_weights(nn.Linear(1, 1), tmp_path / "new.pth", About("vit_5000", ("a",), 32, 32))
    with pytest.raises(UsageError, match=r"new\.pth: unknown model 'vit_5000'"):
        load_model(tmp_path / "new.pth")


def test_weights_of_another_shape_than_named_are_called_damaged(tmp_path: Path) -> None:
    save_weights(nn.Linear(1, 1), tmp_path / "odd.pth", About("cnn", ("a",), 32, 32))
    with pytest.raises(ShardfeedError, match=r"odd\.pth is damaged: its weights do not fit cnn"):
        load_model(tmp_path / "odd.pth")


def test_a_failed_write_leaves_what_was_there(saved: Path) -> None:
    before = saved.read_bytes()

    class Unpicklable(nn.Linear):
        def state_dict(self, *args: object, **kwargs: object) -> dict[str, object]:  # type: ignore[override]
            return {"weight": self.weight, "lambda": lambda: None}

    with pytest.raises(AttributeError):
        save_weights(Unpicklable(1, 1), saved)
    assert saved.read_bytes() == before
