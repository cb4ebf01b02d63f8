"""The options of `python -m model`, without torch, so that help and mistakes need not wait for it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from shards.common.errors import UsageError

_Model = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MODEL.pth")]


# What `require_files` asks for, where weights are meant.
PTH = "the .pth file that training wrote"


def require_files(what: str, *paths: Path) -> None:
    """Raises UsageError, in one line, where some of the paths are no files. what: to give in their place."""
    wrong = [str(path) for path in paths if not path.is_file()]
    if wrong:
        named = ", ".join(wrong[:3]) + (f" and {len(wrong) - 3:,} more" if len(wrong) > 3 else "")
        raise UsageError(f"{named} {'is not a file' if len(wrong) == 1 else 'are not files'}: give {what}")


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
