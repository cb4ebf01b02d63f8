"""The published weights of torchvision and timm, as random ones of the same names, and without a network."""

import io
import sys
import urllib.error
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.models import EfficientNet_B0_Weights, ResNet18_Weights
from torchvision.transforms import v2

from model import build_model
from model.names import check_name
from model.networks import fixed_side, freeze_body, head_of, train_mode
from model.published import published, wanted
from model.weights import About, load_model, save_weights
from shards import Loader
from shards.common.errors import MissingDependency, ShardfeedError, UsageError
from tests.conftest import decoded, jpeg, photo, write_split
from tests.helpers.published import in_hub_cache, random_resnet18


@pytest.fixture(autouse=True)
def _hub_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test waits for the real hub."""
    monkeypatch.setattr("model.published._reachable", lambda: True)


def logits_by(loader: Loader, network: nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        return torch.cat([network(images) for images, _ in loader])


def logits_of(files: list[bytes], transform: Any, network: nn.Module) -> torch.Tensor:
    images = [transform(Image.open(io.BytesIO(data)).convert("RGB")) for data in files]
    with torch.inference_mode():
        return torch.stack([network(each[None])[0] for each in images])


def as_wanted(files: list[bytes], about: About, root: Path) -> Loader:
    """The loader that evaluates as the weights want it."""
    side = min(Image.open(io.BytesIO(files[0])).size)
    return Loader(
        write_split(root, files, short_side=side),
        batch_size=2,
        train=False,
        size=about.size,
        resize=about.resize,
        mean=about.mean,
        std=about.std,
        interpolation=about.interpolation,
        threads=1,
    )


def test_a_resnet_gives_the_logits_of_torchvision_s_own_transforms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_hub_cache(random_resnet18(), tmp_path / "torch", monkeypatch)
    start = published("resnet18")
    network = build_model("resnet18", 1000).eval()
    network.load_state_dict(start.state)
    assert start.about is not None
    files = [jpeg(photo(256, 300, 1)), jpeg(photo(320, 256, 2))]
    with as_wanted(files, start.about, tmp_path / "data") as loader:
        found = logits_by(loader, network)
    expected = logits_of(files, ResNet18_Weights.DEFAULT.transforms(), network)
    assert (found - expected).abs().max() < 1e-3
    assert torch.equal(network.state_dict()["fc.bias"], random_resnet18().state_dict()["fc.bias"])


def test_a_bicubic_network_of_torchvision_gives_the_logits_of_its_transforms(tmp_path: Path) -> None:
    """The pixels are torchvision's on tensors of 8 bits; on PIL images a few of its are a level or two away."""
    about, transform = wanted("efficientnet_b0"), EfficientNet_B0_Weights.DEFAULT.transforms()
    assert about is not None
    assert (about.resize, about.interpolation) == (256, "bicubic")
    network, files = random_resnet18(), [jpeg(photo(288, 330, 1)), jpeg(photo(310, 288, 2))]
    with as_wanted(files, about, tmp_path) as loader:
        [(images, _)] = loader
    steps = [v2.Resize(256, v2.InterpolationMode.BICUBIC), v2.CenterCrop(224), v2.ToDtype(torch.float32, scale=True)]
    on_tensors = v2.Compose([*steps, v2.Normalize(about.mean, about.std)])
    tensors = [on_tensors(torch.from_numpy(decoded(data).copy()).permute(2, 0, 1)) for data in files]
    assert (images - torch.stack(tensors)).abs().max() < 1e-5
    with torch.inference_mode():
        logits = network(images)
    assert logits.std() > 1
    assert (logits - logits_of(files, transform, network)).abs().max() < 1e-3


def test_a_bicubic_network_of_timm_gives_the_logits_of_timm_s_own_transform(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    name = "timm:vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    about = wanted(name)
    assert about == About(
        name, (), size=224, resize=248, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), interpolation="bicubic"
    )
    torch.manual_seed(0)
    network = build_model(name, 10).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(network), is_training=False)
    files = [jpeg(photo(248, 300, 1)), jpeg(photo(320, 248, 2))]
    with as_wanted(files, about, tmp_path / "data") as loader:
        assert (logits_by(loader, network) - logits_of(files, transform, network)).abs().max() < 1e-3
    larger = [jpeg(photo(256, 300, 1)), jpeg(photo(320, 256, 2))]  # resized here too
    with as_wanted(larger, about, tmp_path / "larger") as loader:
        assert (logits_by(loader, network) - logits_of(larger, transform, network)).abs().max() < 1e-3
    assert (head_of(network), fixed_side(network)) == (("head",), 224)


def test_timm_s_weights_are_asked_of_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    timm = pytest.importorskip("timm")
    create, asked = timm.create_model, []

    def random(name: str, pretrained: bool = False, **options: Any) -> Any:
        asked.append((name, pretrained))
        return create(name, **options)

    monkeypatch.setattr(timm, "create_model", random)
    start = published("timm:resnet18.a1_in1k")
    assert asked == [("resnet18.a1_in1k", True)]
    assert start.state["fc.weight"].shape == (1000, 512)
    assert start.about is not None
    assert (start.about.resize, start.about.interpolation) == (235, "bicubic")


def test_without_a_network_one_line_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("model.published.download_url_to_file", unreachable)
    place = tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    with pytest.raises(
        ShardfeedError,
        match=f"^[^\n]+not known[^\n]+ put that file at {place}, or give it to `python -m train --init`$",
    ):
        published("resnet18")


def test_a_hub_that_does_not_answer_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    timm = pytest.importorskip("timm")
    asked: list[str] = []

    class Silent:
        def head(self, url: str, **_: Any) -> None:
            asked.append(url)
            raise ConnectionError(url)

    monkeypatch.undo()  # of what `_hub_answers` has set
    monkeypatch.setattr(huggingface_hub, "get_session", Silent)
    offline: list[bool] = []

    def create(*_: Any, **__: Any) -> None:
        offline.append(huggingface_hub.constants.HF_HUB_OFFLINE)
        raise OSError("it is not in the cache")

    monkeypatch.setattr(timm, "create_model", create)
    with pytest.raises(ShardfeedError, match=r"^the weights of timm:resnet18\.a1_in1k could not be had from"):
        published("timm:resnet18.a1_in1k")
    assert (len(asked), offline) == (1, [True])
    assert not huggingface_hub.constants.HF_HUB_OFFLINE


def test_timm_without_a_network_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    timm = pytest.importorskip("timm")

    def unreachable(*_: Any, **__: Any) -> None:
        raise OSError("cannot find the requested files\nand much more")

    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(
        ShardfeedError, match=r"^[^\n]+timm/resnet18\.a1_in1k \(cannot find the requested files\): without"
    ):
        published("timm:resnet18.a1_in1k")


def test_without_timm_its_names_are_answered_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingDependency, match=r"^timm:resnet18 needs timm, [^\n]+shardfeed\[timm\]'$"):
        check_name("timm:resnet18", ())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet52", r"unknown model 'resnet52' \(did you mean resnet\d+\?\): choose one of cnn"),
        ("timm:resnett18", r"\(did you mean timm:resnet18\?\): choose one of the [\d,]+ that timm"),
        ("timm:resnet18.a9_in1k", r"\(did you mean timm:resnet18\.a\d_in1k\?\): choose one of timm:resnet18\."),
    ],
)
def test_a_close_name_is_suggested(name: str, message: str) -> None:
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    with pytest.raises(UsageError, match=message):
        build_model(name, 10)


def test_a_network_without_published_weights_says_so() -> None:
    assert wanted("cnn") is None
    with pytest.raises(UsageError, match="nobody publishes weights of cnn"):
        published("cnn")


@pytest.mark.parametrize(
    ("name", "head"),
    [("cnn", "head"), ("resnet18", "fc"), ("efficientnet_b0", "classifier.1"), ("convnext_tiny", "classifier.2")],
)
def test_the_head_is_the_layer_that_gives_the_logits(name: str, head: str) -> None:
    assert head_of(build_model(name, 3)) == (head,)


def test_a_frozen_body_computes_as_in_evaluation_and_keeps_its_statistics() -> None:
    torch.manual_seed(0)
    network = build_model("cnn", 3)
    freeze_body(network)
    train_mode(network, network, frozen=True)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    images = torch.randn(2, 3, 8, 8)
    first, second = network(images), network(images)
    assert torch.equal(first, second)  # no dropout
    first.sum().backward()
    assert [name for name, each in network.named_parameters() if each.grad is not None] == ["head.weight", "head.bias"]
    assert [name for name, module in network.named_modules() if module.training] == ["head"]
    after = network.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_the_description_of_other_pixels_survives_the_file_and_reaches_predictions(tmp_path: Path) -> None:
    from model.images import to_tensor

    mean, std = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    about = About("cnn", ("a", "b"), 32, 36, mean=mean, std=std, interpolation="bicubic")
    save_weights(build_model("cnn", 2), tmp_path / "model.pth", about)
    assert load_model(tmp_path / "model.pth")[1] == about
    assert "shorter side 36 by bicubic, centre crop 32, mean 0.5 0.5 0.5" in str(about)
    image = Image.fromarray(photo(60, 70))
    resized = np.asarray(image.resize((42, 36), Image.Resampling.BICUBIC))[2:34, 5:37]
    expected = torch.from_numpy(resized / 127.5 - 1).permute(2, 0, 1).float()
    torch.testing.assert_close(to_tensor(image, about), expected)


def test_a_network_for_one_size_is_built_for_another_and_comes_back_from_its_file(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    name = "timm:vit_tiny_patch16_224"
    network = build_model(name, 2, size=32)
    save_weights(network, tmp_path / "model.pth", About(name, ("a", "b"), 32, 36))
    again, _ = load_model(tmp_path / "model.pth")
    images = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(again(images), network.eval()(images))
