"""Weights to begin with: which files are read, what becomes of the head, what is said of tensors that do not fit."""

import argparse
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import get_model

from model.start import Start, fit, read_start
from model.weights import About, save_weights
from shards.common.errors import MissingDependency, ShardfeedError, UsageError
from tests.helpers.resume import pooled

NAMES = ("cat", "dog", "bird")
ABOUT = About("pooled", NAMES, size=16, resize=18)


@pytest.fixture
def state() -> dict[str, Tensor]:
    torch.manual_seed(3)
    return dict(pooled(3).state_dict())


def loaded(state: dict[str, Tensor], classes: int = 3, about: About | None = ABOUT) -> tuple[nn.Module, list[str]]:
    """A network of `classes` that begins with `state`, and what is said of it."""
    network = pooled(classes)
    names = (*NAMES, *(f"class {number}" for number in range(classes)))[:classes]
    return network, fit(network, Start("them.pth", state, about), names)


def same(network: nn.Module, state: dict[str, Tensor], *without: str) -> bool:
    own = network.state_dict()
    return all(torch.equal(own[key], state[key]) for key in own if not key.startswith(without or ("no layer",)))


@pytest.mark.parametrize(
    "save",
    [
        lambda state, path: torch.save(state, path),
        lambda state, path: torch.save(state, path, _use_new_zipfile_serialization=False),
        lambda state, path: torch.save({"model": state, "args": argparse.Namespace(lr=1), "epoch": 3}, path),
        lambda state, path: torch.save({"state_dict": {f"module.{key}": state[key] for key in state}}, path),
    ],
    ids=["a state dict", "of before archives", "a checkpoint with options", "of a wrapper"],
)
def test_state_dicts_of_others_are_read(save: Any, state: dict[str, Tensor], tmp_path: Path) -> None:
    save(state, tmp_path / "them.pth")
    start = read_start(tmp_path / "them.pth")
    assert start.about is None
    assert start.state.keys() == state.keys()
    assert all(torch.equal(start.state[key], state[key]) for key in state)


@pytest.mark.parametrize("classes", [3, 4])
def test_a_network_inside_a_larger_module_is_found(state: dict[str, Tensor], classes: int) -> None:
    inside = {f"model.backbone.{key}": state[key] for key in state} | {"model.projector.weight": torch.ones(2)}
    network, lines = loaded(inside, classes, about=None)
    assert same(network, state, *(["6."] if classes == 4 else []))
    assert lines[0].endswith("of them.pth, whose names begin with model.backbone.")


def test_a_resnet_inside_a_larger_module_is_told_from_its_own_blocks() -> None:
    network, other = get_model("resnet18", num_classes=3), get_model("resnet18", num_classes=3)
    whole = {f"backbone.{key}": value for key, value in other.state_dict().items()}
    assert "begin with backbone." in fit(network, Start("ssl.pth", whole), NAMES)[0]
    assert same(network, other.state_dict())


def test_of_several_networks_none_is_taken(state: dict[str, Tensor]) -> None:
    both = {f"{name}.{key}": state[key] for key in state for name in ("student", "teacher")}
    with pytest.raises(UsageError, match=r"^them\.pth holds several networks, .+ student\. and teacher\.: save"):
        loaded(both)


def test_safetensors_are_read(state: dict[str, Tensor], tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    safetensors.save_file(state, tmp_path / "them.safetensors")
    assert read_start(tmp_path / "them.safetensors").state.keys() == state.keys()
    (tmp_path / "them.safetensors").write_bytes((tmp_path / "them.safetensors").read_bytes()[:100])
    with pytest.raises(
        ShardfeedError, match=r"^[^\n]+them\.safetensors is damaged, or is no file of safetensors[^\n]+$"
    ):
        read_start(tmp_path / "them.safetensors")


def test_without_safetensors_the_message_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "safetensors", None)
    (tmp_path / "them.safetensors").touch()
    with pytest.raises(MissingDependency, match=r"shardfeed\[timm\]"):
        read_start(tmp_path / "them.safetensors")


def test_our_own_file_says_what_it_is_of(tmp_path: Path) -> None:
    save_weights(pooled(3), tmp_path / "ours.pth", ABOUT)
    assert read_start(tmp_path / "ours.pth").about == ABOUT


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"weight": torch.tensor([1.0, float("nan")])}, "values in weight that are not finite"),
        ({"weight": torch.zeros(3).to_sparse()}, "weight is sparse"),
        ({"weight": torch.zeros(3, device="meta")}, "weight is sparse, quantized or without values"),
        ({"weight": 3}, "holds no plain state dict"),
        ({"model": [1, 2]}, "holds no plain state dict"),
        ({"net": Path("x")}, "more than tensors and plain values: save its state dict alone"),
    ],
)
def test_a_file_without_ordinary_weights_is_refused(content: Any, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "them.pth")
    with pytest.raises(ShardfeedError, match=f"^[^\n]*{message}[^\n]*$"):
        read_start(tmp_path / "them.pth")


def test_weights_of_the_same_classes_are_taken_whole(state: dict[str, Tensor]) -> None:
    network, lines = loaded(state)
    assert same(network, state)
    assert lines == [f"weights: all {len(state)} tensors of them.pth"]


@pytest.mark.parametrize(
    ("classes", "change", "said"),
    [
        (5, {}, "new head of 5 classes in place of one for 3"),
        (3, {"6.weight": None, "6.bias": None}, "new head of 3 classes: the weights have none"),
    ],
)
def test_a_head_that_does_not_fit_is_made_anew(
    classes: int, change: dict[str, None], said: str, state: dict[str, Tensor]
) -> None:
    network, lines = loaded({key: value for key, value in state.items() if key not in change}, classes)
    assert lines == [f"weights: {len(state) - 2} tensors of them.pth", said]
    assert same(network, state, "6.")


def test_a_head_of_other_classes_of_the_same_number_is_made_anew(state: dict[str, Tensor]) -> None:
    about = About("pooled", ("car", "bus", "tram"), size=16, resize=18)
    network, lines = loaded(state, about=about)
    assert lines[1] == "new head of 3 classes in place of one for classes of other names"
    assert not torch.equal(network.state_dict()["6.weight"], state["6.weight"])
    published = About("pooled", (), size=16, resize=18)  # which names no classes
    assert same(loaded(state, about=published)[0], state)


def test_tensors_that_one_side_lacks_are_counted_and_named(state: dict[str, Tensor]) -> None:
    del state["1.bias"], state["1.num_batches_tracked"]
    _, lines = loaded({**state, "extra.a": torch.zeros(1), "extra.b": torch.zeros(1)})
    missing, surplus = lines[1:]
    assert missing.startswith("1 of the 5 tensors outside the head here are not in the file and begin random (is it of")
    assert missing.endswith(": 1.bias")
    assert surplus == "2 tensors of the file have no place in the network: extra.a, extra.b"


def test_weights_of_a_deeper_network_are_no_frozen_body() -> None:
    """ResNet-34's weights hold all names and shapes of ResNet-18, whose features are no features of either."""
    with torch.device("meta"):
        shapes = {key: each.shape for key, each in get_model("resnet34").state_dict().items()}
    deeper = Start("rn34.pth", {key: torch.zeros(shape) for key, shape in shapes.items()})
    network = get_model("resnet18", num_classes=3)
    with pytest.raises(UsageError, match=r"^rn34\.pth is of another model: 96 tensors .+: layer1\.2\.conv1\.weight"):
        fit(network, deeper, NAMES, freeze=True)
    assert "no place in the network (is it of another model?): layer1.2" in fit(network, deeper, NAMES)[-1]
    shallow = {key: value for key, value in network.state_dict().items() if not key.startswith("fc.")}
    fit(network, Start("rn18.pth", {**shallow, "projection.0.weight": torch.zeros(1)}), NAMES, freeze=True)


def test_a_frozen_body_must_be_in_the_file(state: dict[str, Tensor]) -> None:
    whole = {key: state[key] for key in state if not key.endswith("num_batches_tracked")}
    fit(pooled(5), Start("them.pth", whole), NAMES, freeze=True)
    del whole["1.bias"]
    with pytest.raises(UsageError, match=r"^them\.pth is of another model: 1 of the .+ and .+--freeze.+: 1\.bias$"):
        fit(pooled(3), Start("them.pth", whole), NAMES, freeze=True)


def test_another_shape_outside_the_head_is_refused(state: dict[str, Tensor]) -> None:
    with pytest.raises(
        UsageError, match=r"1 of its tensors have other shapes here, first 0\.weight with \(8, 3, 5, 5\)"
    ):
        loaded({**state, "0.weight": torch.zeros(8, 3, 5, 5)})


def test_weights_of_another_kind_of_network_are_refused() -> None:
    with pytest.raises(UsageError, match=r"none of its 1 tensor \(blocks\.0\) has the name of one outside the head"):
        loaded({"blocks.0": torch.zeros(1)})
