"""The options of `python -m model`, without torch, so that help and mistakes need not wait for it."""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from shards.common.errors import UsageError

_Model = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MODEL.pth")]


# What is asked for, where weights are meant.
PTH = "the .pth file that training wrote"
SAFETENSORS = ".safetensors"
# The first bytes of torch.save's archive, and before version 1.6 of its pickle: torchvision's oldest weights.
ARCHIVE = b"PK\x03\x04"
OLD = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


def require_files(what: str, *paths: Path) -> None:
    """Raises UsageError, in one line, where some of the paths are no files. what: to give in their place."""
    wrong = [str(path) for path in paths if not path.is_file()]
    if wrong:
        named = ", ".join(wrong[:3]) + (f" and {len(wrong) - 3:,} more" if len(wrong) > 3 else "")
        raise UsageError(f"{named} {'is not a file' if len(wrong) == 1 else 'are not files'}: give {what}")


def require_weights(*paths: Path, what: str = PTH) -> None:
    """Raises UsageError, in one line, for paths that are no files, and for files of another kind than weights.

    What is damaged is left to those who read it: a file that is cut off, and an archive that cannot be opened. what: to
    give in their place.
    """
    require_files(what, *paths)
    for path in paths:
        with path.open("rb") as file:
            start = file.read(len(OLD))
        if path.suffix == SAFETENSORS:
            if start[8:9] not in (b"", b"{"):  # after the length of the header, which is JSON
                raise UsageError(f"{path} is no file of safetensors: give {what}")
        elif not (OLD.startswith(start) or ARCHIVE.startswith(start[:4])) or not _of_torch(path):
            raise UsageError(f"{path} was not written by torch.save: give {what}")


def _of_torch(path: Path) -> bool:
    """Whether a file may be torch.save's: no other archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/data.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return True  # damaged: a changed byte may also name a newer format, which zipfile says is not implemented


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
