"""The networks: size, initial weights, shapes, and the names that `build_model` knows."""

import pytest
import torch
from torch import nn

from model import MODELS, build_model
from model.cnn import Cnn
from shards.common.errors import UsageError


def test_cnn_has_the_reference_number_of_parameters() -> None:
    assert sum(parameter.numel() for parameter in Cnn(1000).parameters()) == 5_200_296


def test_cnn_layers_are_in_the_reference_order() -> None:
    layers = [type(layer).__name__ for layer in Cnn(10).modules() if not list(layer.children())]
    block = ["Conv2d", "BatchNorm2d", "ReLU"]
    stage = [*block, *block, "MaxPool2d", "Dropout2d"]
    assert layers == [*stage, *stage, *stage, *block, *block, "AdaptiveAvgPool2d", "Dropout", "Linear"]


def test_cnn_convolutions_have_no_bias_and_the_reference_channels() -> None:
    convolutions = [layer for layer in Cnn(10).modules() if isinstance(layer, nn.Conv2d)]
    assert [layer.out_channels for layer in convolutions] == [64, 64, 128, 128, 256, 256, 512, 512]
    assert all(layer.bias is None and layer.kernel_size == (3, 3) for layer in convolutions)


def test_cnn_dropout_probabilities() -> None:
    layers = list(Cnn(10).modules())
    assert [layer.p for layer in layers if isinstance(layer, nn.Dropout2d)] == [0.25] * 3
    assert [layer.p for layer in layers if isinstance(layer, nn.Dropout)] == [0.5]


def test_cnn_initial_weights_have_the_stated_spread() -> None:
    torch.manual_seed(0)
    network = Cnn(1000)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            expected = (2 / (9 * layer.out_channels)) ** 0.5  # fan out: 3 x 3 x output channels
            assert layer.weight.std().item() == pytest.approx(expected, rel=0.1)
            assert abs(layer.weight.mean().item()) < 0.1 * expected
    assert network.head.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert not network.head.bias.any()


@pytest.mark.parametrize("name", MODELS)
def test_every_model_gives_one_logit_per_class(name: str) -> None:
    network = build_model(name, num_classes=7).eval()
    with torch.inference_mode():
        assert network(torch.zeros(2, 3, 64, 64)).shape == (2, 7)


def test_cnn_takes_images_of_8_pixels_and_any_aspect() -> None:
    with torch.inference_mode():
        assert Cnn(3).eval()(torch.zeros(1, 3, 8, 24)).shape == (1, 3)


def test_the_same_seed_gives_the_same_weights() -> None:
    torch.manual_seed(5)
    first = build_model("cnn", 10).state_dict()
    torch.manual_seed(5)
    second = build_model("cnn", 10).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_an_unknown_model_is_refused_with_the_known_names() -> None:
    names = "cnn, resnet18, resnet34, resnet50, resnet101, efficientnet_b0, convnext_tiny"
    with pytest.raises(UsageError, match=f"'alexnet': choose one of {names} or timm:NAME$"):
        build_model("alexnet", 10)


def test_a_model_without_classes_is_refused() -> None:
    with pytest.raises(UsageError, match="num_classes must be 1 or more, not 0"):
        build_model("cnn", 0)
