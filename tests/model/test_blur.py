"""Anti-aliased convolutions: where they are put, and what they compute."""

import pytest
import torch
from torch import nn

from model import build_model
from model.blur import BlurredConv2d
from shards.common.errors import UsageError


def test_a_blurred_convolution_is_the_convolution_of_the_blurred_input() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(16, 4, 3, stride=2, padding=1)
    features = torch.randn(2, 16, 9, 11)
    padded = nn.functional.pad(features, (1, 1, 1, 1))
    rows = (padded[:, :, :-2] + 2 * padded[:, :, 1:-1] + padded[:, :, 2:]) / 4
    blurred = (rows[..., :-2] + 2 * rows[..., 1:-1] + rows[..., 2:]) / 4
    torch.testing.assert_close(BlurredConv2d(conv)(features), conv(blurred))


def test_constant_features_pass_the_blur_unchanged_inside_the_border() -> None:
    conv = nn.Conv2d(16, 1, 1, stride=2, bias=False)
    nn.init.constant_(conv.weight, 1 / 16)
    result = BlurredConv2d(conv)(torch.ones(1, 16, 9, 9))
    assert torch.equal(result[..., 1:-1, 1:-1], torch.ones(1, 1, 3, 3))


def test_the_blur_lowers_what_a_stride_would_alias() -> None:
    conv = nn.Conv2d(16, 1, 1, stride=2, bias=False)
    nn.init.constant_(conv.weight, 1.0)
    stripes = torch.tensor([1.0, -1.0]).repeat(8).expand(1, 16, 16, 16)  # the highest frequency there is
    assert conv(stripes).abs().min() == 16
    assert BlurredConv2d(conv)(stripes)[..., 1:-1].abs().max() == 0


@pytest.mark.parametrize(
    # ResNets: the strided convolution of stages 2 to 4, and the one beside it on the shortcut. The others: their
    # downsampling convolutions, but not the first one, which sees the image's three channels.
    ("name", "places"),
    [("resnet18", 6), ("resnet50", 6), ("efficientnet_b0", 4), ("convnext_tiny", 3)],
)
def test_every_strided_convolution_but_the_first_is_blurred(name: str, places: int) -> None:
    torch.manual_seed(0)
    network = build_model(name, 3, blur_pool=True)
    blurred = [module for module in network.modules() if isinstance(module, BlurredConv2d)]
    assert len(blurred) == places
    assert all(max(module.conv.stride) == 2 for module in blurred)
    inside = {id(module.conv) for module in blurred}
    strided = [m for m in network.modules() if isinstance(m, nn.Conv2d) and max(m.stride) > 1 and id(m) not in inside]
    assert [conv.in_channels for conv in strided] == [3]


def test_the_filters_are_no_weights() -> None:
    plain, blurred = build_model("resnet18", 3), build_model("resnet18", 3, blur_pool=True)
    assert len(plain.state_dict()) == len(blurred.state_dict())
    assert sum(p.numel() for p in plain.parameters()) == sum(p.numel() for p in blurred.parameters())


def test_a_model_without_strided_convolutions_is_refused() -> None:
    with pytest.raises(UsageError, match="cnn has no convolution with a stride"):
        build_model("cnn", 3, blur_pool=True)
