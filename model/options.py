"""The options of `python -m model`, without torch, so that help and mistakes need not wait for it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from shards.common.errors import UsageError

_Model = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MODEL.pth")]


@dataclass(frozen=True)
class Predict:
    """Prints the five best classes of each image by a trained model, with their probabilities."""

    model: _Model
    """The .pth file that `python -m train` wrote, or one of its checkpoints."""
    images: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="IMAGE...")]
    """Image files: JPEG, PNG or any other format that Pillow reads."""

    def __post_init__(self) -> None:
        if not self.images:
            raise UsageError("no images to predict: give one or more image files after the model")


@dataclass(frozen=True)
class Export:
    """Writes a trained model as a torch.export program and as ONNX, checked against the model itself."""

    model: _Model
    """The .pth file that `python -m train` wrote, or one of its checkpoints."""
    output: Path
    """The file to write: NAME.pt2 (torch.export) or NAME.onnx (ONNX); NAME alone writes both."""
