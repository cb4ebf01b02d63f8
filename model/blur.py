"""Anti-aliased downsampling: a small blur before every convolution with a stride (`--blur-pool`).

After R. Zhang, "Making Convolutional Networks Shift-Invariant Again" (arXiv:1904.11486), in the form used for
ffcv-imagenet's published ResNets: the blur comes before the convolution, and max pools stay unchanged.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# The first convolution, on an image's three channels, is left alone: ffcv-imagenet's bound.
LEAST_CHANNELS = 16


class BlurredConv2d(nn.Module):
    """`conv` on its input (B, C, H, W) blurred by the binomial filter [1 2 1] in both directions.

    The filter is fixed, and is not in the state dict.
    """

    taps: Tensor

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv
        row = torch.tensor([1.0, 2.0, 1.0]) / 4
        taps = torch.outer(row, row).expand(conv.in_channels, 1, 3, 3)
        self.register_buffer("taps", taps.contiguous(), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """`conv` of the blurred features; the blur does not change the shape."""
        blurred = F.conv2d(features, self.taps, padding=1, groups=self.conv.in_channels)
        convolved: Tensor = self.conv(blurred)
        return convolved


def blur_strided(network: nn.Module) -> int:
    """Puts a blur before each strided convolution of `network`, in place; returns their number."""
    count = 0
    for name, child in network.named_children():
        if isinstance(child, nn.Conv2d) and max(child.stride) > 1 and child.in_channels >= LEAST_CHANNELS:
            setattr(network, name, BlurredConv2d(child))
            count += 1
        else:
            count += blur_strided(child)
    return count
