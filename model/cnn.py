"""The eight-convolution network of the `cnn` recipe, for images of 8x8 pixels or more.

Four stages of two 3x3 convolutions, each followed by batch norm and ReLU; the first three stages end in a
2x2 max pool and channel dropout; then a global average, dropout, and one linear layer. With 1,000 classes
it has 5,200,296 parameters, in float32 20.8 MB.
"""

from itertools import pairwise

from torch import Tensor, nn

STAGE_CHANNELS = (64, 128, 256, 512)
CHANNEL_DROPOUT = 0.25
HEAD_DROPOUT = 0.5


class Cnn(nn.Module):
    """Images (B, 3, H, W), float, H and W at least 8, to logits (B, num_classes)."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        stages = [_stage(before, after) for before, after in pairwise((3, *STAGE_CHANNELS))]
        for stage in stages[:-1]:
            stage.append(nn.MaxPool2d(2))
            stage.append(nn.Dropout2d(CHANNEL_DROPOUT))
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(HEAD_DROPOUT)
        self.head = nn.Linear(STAGE_CHANNELS[-1], num_classes)
        self.apply(_initialise)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, num_classes) of images (B, 3, H, W)."""
        features = self.pool(self.stages(images)).flatten(1)
        logits: Tensor = self.head(self.dropout(features))
        return logits


def _stage(before: int, after: int) -> nn.Sequential:
    """Two convolutions that keep height and width. They have no bias: batch norm would subtract it."""
    layers: list[nn.Module] = []
    for channels in (before, after):
        layers += [
            nn.Conv2d(channels, after, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


def _initialise(module: nn.Module) -> None:
    """He et al. 2015 (arXiv:1502.01852), variance 2 / fan out, for convolutions; N(0, 0.01) for the linear layer."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.01)
        nn.init.zeros_(module.bias)
