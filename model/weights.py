"""The file of trained weights: saving, loading, and the description of the model in it.

    network, about = load_model("Results/imagenet_trained_model.pth")
    batch = torch.stack([to_tensor(open_image(path), about) for path in paths])     # model/images.py
    names = [about.class_names[best] for best in network(batch).argmax(1)]

The file is a plain state dict, which `torch.load(path, weights_only=True)` opens anywhere. The description of the
model (`About`) is an attribute of that mapping, which `load_state_dict` ignores. A checkpoint of a run holds weights
and description too, and is read in the same way.
"""

import dataclasses
import errno
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import torch
from torch import Tensor, nn

from model.networks import build_model
from model.options import PTH, require_files, require_weights
from shards.common.arguments import as_path
from shards.common.atomic import replacing
from shards.common.errors import ShardfeedError, UsageError
from shards.common.terminal import counted
from shards.decode import MEAN, STD
from shards.sampling.crops import Interpolation

ATTRIBUTE = "shardfeed"
# What may be wrong with a file that torch.save wrote.
NOT_PLAIN = "holds more than tensors and plain values: save its state dict alone"
# A checkpoint is known by this entry, and has the description in the other: train/checkpoints/snapshot.py.
OF_RANKS, ABOUT = "of_ranks", "about"

# Files come from strangers: sides are checked before they become the sizes of tensors.
_Side = Annotated[int, msgspec.Meta(ge=1, le=65_535)]


@dataclass(frozen=True, repr=False)
class About:
    """The network that weights belong to, and how its images were prepared for evaluation."""

    model: str
    """Its name, as `build_model` takes it."""
    class_names: tuple[str, ...]
    """The name of each class, by its label."""
    size: _Side
    """Side of the centre crop, in pixels."""
    resize: _Side
    """Shorter side before that crop, in pixels."""
    blur_pool: bool = False
    """Whether its strided convolutions are anti-aliased."""
    mean: tuple[float, float, float] = MEAN
    """Subtracted from red, green and blue in [0, 1]."""
    std: tuple[float, float, float] = STD
    """What the differences are divided by."""
    interpolation: Interpolation = "bilinear"
    """The filter of the resize, antialiased."""
    flip_tta: bool = False
    """Whether the prediction is the mean over the image and its mirror image."""

    def __str__(self) -> str:
        mean, std = (" ".join(f"{value:g}" for value in each) for each in (self.mean, self.std))
        classes = counted(len(self.class_names), "class", "classes")
        blurred = " with blur pooling" if self.blur_pool else ""
        mirrored = ", mean over mirror images" if self.flip_tta else ""
        filtered = " by bicubic" if self.interpolation == "bicubic" else ""
        return (
            f"{self.model}{blurred}, {classes}; images: shorter side {self.resize}{filtered}, "
            f"centre crop {self.size}, mean {mean}, std {std}{mirrored}"
        )

    def __repr__(self) -> str:
        return (
            f"<About {self.model}: {counted(len(self.class_names), 'class', 'classes')}, images of {self.size} pixels>"
        )


def save_weights(network: nn.Module, path: str | Path, about: About | None = None) -> None:
    """Writes the state dict (parameters and buffers, on the CPU, contiguous) and `about`, whole or not at all.

    `network` must be the network itself: a wrapper such as DistributedDataParallel prefixes every key.
    """
    write_state(network.state_dict(), path, about)


def write_state(state: Mapping[str, Tensor], path: str | Path, about: About | None = None) -> None:
    """As `save_weights`, for a state dict instead of a network."""
    plain = OrderedDict((key, value.detach().cpu().contiguous()) for key, value in state.items())
    if about is not None:
        setattr(plain, ATTRIBUTE, dataclasses.asdict(about))
    save_whole(plain, as_path("the file of the weights", path))


def save_whole(content: Any, path: Path) -> None:
    """torch.save, but the file is whole or absent. Raises OSError where it cannot be written."""
    try:
        with replacing(path) as file:
            torch.save(content, file)
    except RuntimeError as error:
        # On a full disk torch.save fails at its end, with a RuntimeError about a position in the file.
        cause = error.__context__
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__context__
        if cause is None:
            raise
        raise cause from error


def read_saved(path: str | Path) -> Any:
    """The object that torch.save wrote into `path`, its tensors on the CPU; no code in the file is run.

    Raises UsageError where there is no such file or it holds objects of other kinds, ShardfeedError where it is damaged
    or was not written by torch.save.
    """
    path = as_path("the file of the weights", path)
    require_files(PTH, path)
    try:
        broken = _broken_entry(path)
        saved = None if broken else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # in a damaged file any byte may be wrong: a dozen types of exception were seen
        # EINVAL: a damaged directory of the archive points before the beginning of the file.
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        if isinstance(error, pickle.UnpicklingError):  # of whole bytes, by their checksums
            raise UsageError(f"{path} {NOT_PLAIN}") from error
        raise ShardfeedError(f"{path} is damaged, or was not written by torch.save") from error
    if broken:
        raise ShardfeedError(f"{path} is damaged: the checksum of {broken} in it is wrong")
    return saved


def _broken_entry(path: Path) -> str | None:
    """The first entry of torch.save's zip archive, a tensor or the names of all, whose CRC-32 is wrong; None if none.

    torch.save writes these checksums and torch.load does not compare them (2.14): a changed bit would pass for another
    weight. Every file that torch.save ever wrote as an archive has them.
    """
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.external_attr:  # 0 in each; with the directory's bit set torch.load gives uninitialised memory
                return entry.filename
        return archive.testzip()


def about_of(saved: Any) -> About | None:
    """The description beside the weights that `read_saved` returned; None if there is none, or a field is wrong."""
    written = saved.get(ABOUT) if is_checkpoint(saved) else getattr(saved, ATTRIBUTE, None)
    try:
        return msgspec.convert(written, About)
    except msgspec.ValidationError:
        return None


def is_checkpoint(saved: Any) -> bool:
    """Whether `read_saved` returned a run's checkpoint."""
    return isinstance(saved, Mapping) and OF_RANKS in saved


def state_of(saved: Any) -> Any:
    """The state dict that `read_saved` returned, or that of a checkpoint: the moving average, where the run has one."""
    if not is_checkpoint(saved):
        return saved
    average = saved.get("average")
    if average is None:
        return saved.get("network")
    return {key.removeprefix("module."): value for key, value in average.items() if key.startswith("module.")}


def load_model(path: str | Path) -> tuple[nn.Module, About]:
    """The network whose weights `path` holds, for inference on the CPU, and its description.

    Raises as `read_saved`; UsageError if the file holds no weights that training wrote, or those of a model that
    this version does not know; ShardfeedError if weights and model do not fit each other.
    """
    require_weights(as_path("the file of the weights", path))
    saved = read_saved(path)
    about = about_of(saved)
    if about is None:
        raise UsageError(
            f"{path} does not say which model and classes it is of: give a .pth file or a checkpoint that "
            "`python -m train` wrote, of this version or newer"
        )
    try:
        network = build_model(about.model, len(about.class_names), blur_pool=about.blur_pool, size=about.size)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    try:
        network.load_state_dict(state_of(saved))
    except (RuntimeError, TypeError, AttributeError) as error:
        raise ShardfeedError(f"{path} is damaged: its weights do not fit {about.model}, the model it names") from error
    return network.eval(), about
