"""The options that few runs change, in groups. `Config` holds one of each, and the help shows each with a title."""

import dataclasses
import importlib.util
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from shards.common.arguments import check_fields, interval
from shards.common.errors import MissingDependency, UsageError
from shards.decode import MEAN, STD
from shards.remote.cache import Cache, cache_home, parse_size
from shards.sampling.crops import RATIOS, RRC_RATIO, RRC_SCALE, SCALES, Interpolation
from shards.sampling.order import BLOCK_SHARDS

_BOUNDS = tyro.conf.arg(metavar="LEAST MOST")


@dataclass(frozen=True)
class Update:
    """How a step changes the weights."""

    optimizer: Literal["adamw", "sgd", "lamb", "muon"] = "adamw"
    """adamw: weight decay apart from the gradient; sgd: Nesterov momentum, weight decay as part of the gradient; lamb,
    for large batches, and muon: timm's, which must be installed."""

    momentum: float = 0.9
    """Momentum of sgd. adamw has none: its first beta follows the schedule."""

    decay: Literal["all", "kernels"] = "all"
    """Which weights decay; kernels: weights of two or more dimensions, so neither norms nor biases."""

    schedule: Literal["onecycle", "linear", "cosine"] = "onecycle"
    """Shape of the learning rate's rise and fall: half a cosine each; straight lines; or a line up and half a cosine
    down."""

    loss: Literal["ce", "bce"] = "ce"
    """ce: cross-entropy; bce: binary cross-entropy of each class, where both classes of a mixed image count fully."""

    drop_last: bool = False
    """Leaves out an epoch's last step if it has fewer images; then any number of ranks takes the same steps."""

    ema: float = 0.0
    """Decay of the moving average of the weights, which is evaluated and saved in their place; 0: no average."""

    ema_every: int = 1
    """Optimizer steps between two updates of that average."""

    ema_warm_up: bool = False
    """The decay of the average begins low, at step n with (1 + n) / (10 + n), and rises to --ema."""

    bad_losses: int = 5
    """The run ends after so many steps in a row without a finite loss. Such a step changes no weight."""

    def __post_init__(self) -> None:
        check_fields(self)
        require("ema_every", self.ema_every, 1)
        require("bad_losses", self.bad_losses, 1)
        for name, value in (("momentum", self.momentum), ("ema", self.ema)):
            if not 0 <= value < 1:
                raise UsageError(f"{option(name)} must be from 0 to below 1, not {value}")


@dataclass(frozen=True)
class Feeding:
    """How images are read, decoded and augmented, besides --crop and --order."""

    augment: Literal["none", "trivial", "rand", "auto", "three"] = "none"
    """Augmentation of training images after the crop: TrivialAugment, RandAugment, AutoAugment, or DeiT III's
    3-Augment."""

    scale: Annotated[tuple[float, float], _BOUNDS] = RRC_SCALE
    """With --crop rrc: the least and the most of an image's area that is cut out of it."""

    ratio: Annotated[tuple[float, float], _BOUNDS] = RRC_RATIO
    """With --crop rrc: the least and the most width, by height, of what is cut out."""

    flip: bool = True
    """Mirrors half of the training images, anew each epoch: not for digits and text."""

    pad: int = 0
    """With --crop random: black pixels around training images before they are cropped; 4 is usual for 32 pixels."""

    num_repeats: int = 1
    """Repeated augmentation: an epoch has so many differently augmented copies of each of fewer images, on different
    ranks where there are several."""

    window: int = BLOCK_SHARDS
    """Shards that --order blocks reads and shuffles together."""

    decode: Literal["auto", "cpu", "region", "hardware", "hybrid"] = "auto"
    """What decodes for a GPU: cpu; region: the GPU's cores; hardware: its JPEG engines; hybrid: both; auto: cpu where a
    rank has cores enough, otherwise the engines where the GPU has them."""

    cache_dir: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Directory of the cache for the shards of a data set at a URL; ~/.cache/shardfeed if not given."""

    cache_size: Annotated[str, tyro.conf.arg(metavar="SIZE")] = "100GB"
    """Most bytes that the cache takes."""

    def __post_init__(self) -> None:
        check_fields(self)
        require("pad", self.pad, 0)
        require("window", self.window, 1)
        require("num_repeats", self.num_repeats, 1)
        interval("--scale", self.scale, *SCALES)
        interval("--ratio", self.ratio, *RATIOS)
        _ = self.cache  # raises UsageError for a --cache-size that is no size

    @property
    def cache(self) -> Cache:
        """The cache of remote shards. Raises UsageError if `cache_size` is no size."""
        return Cache(self.cache_dir or cache_home(), parse_size(self.cache_size))


@dataclass(frozen=True)
class Start:
    """Weights that training begins with, and which of them it changes."""

    pretrained: bool = False
    """Begins with the weights that torchvision or timm publish for --model. Images are then normalised, resized and
    evaluated as those weights want it."""

    init: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Begins with the weights in this file: a .pth file or checkpoint of ours, a .safetensors, or a state dict of
    torchvision or timm."""

    freeze: bool = False
    """Trains the last layer alone; the others compute as in evaluation, without dropout, and keep their statistics."""

    backbone_lr_scale: float = 1.0
    """The learning rate of all but the last layer, as a multiple of the last layer's, which is --max-lr."""

    def __post_init__(self) -> None:
        check_fields(self)
        if not 0 < self.backbone_lr_scale <= 1:
            raise UsageError(f"--backbone-lr-scale must be above 0 and at most 1, not {self.backbone_lr_scale:g}")
        if self.pretrained and self.init is not None:
            raise UsageError("--pretrained and --init both say what to begin with: give one")
        if self.freeze and not (self.pretrained or self.init):
            raise UsageError("--freeze trains the last layer of given weights alone: add --pretrained or --init FILE")
        if self.freeze and self.backbone_lr_scale != 1:
            raise UsageError("--freeze trains nothing but the last layer: leave --backbone-lr-scale out")


@dataclass(frozen=True)
class Pixels:
    """How images are resized, and how pixels become values. The weights that a run begins with say most of it."""

    mean: tyro.conf.Fixed[tuple[float, float, float]] = MEAN
    std: tyro.conf.Fixed[tuple[float, float, float]] = STD
    interpolation: Literal["auto", Interpolation] = "auto"
    """The filter that resizes images, in training and evaluation; auto: as the weights want it that the run begins
    with, or bilinear."""

    def __post_init__(self) -> None:
        check_fields(self)

    def resolved(self, wanted: Interpolation = "bilinear") -> "Pixels":
        """With the filter `wanted` in place of auto."""
        return dataclasses.replace(self, interpolation=wanted) if self.interpolation == "auto" else self


@dataclass(frozen=True)
class Samples:
    """Which samples of the data set are used, and under which classes."""

    subset: float | Path | None = None
    """Trains on a part: a fraction of each class, such as 0.1, or a file that names samples or classes, one a line.
    Classes named there are the only ones of validation, too."""

    class_map: Path | None = None
    """A file that gives classes new ones: a line a class, its name, a tab, the new name. Others are left out."""

    def __post_init__(self) -> None:
        check_fields(self)
        if isinstance(self.subset, float) and not 0 < self.subset < 1:
            raise UsageError(f"--subset must lie between 0 and 1, or be a file, not {self.subset:g}")


@dataclass(frozen=True)
class Validation:
    """What the network is validated on."""

    val_split: str = "auto"
    """Split to validate on; auto: the first of validation, val, valid, dev and test that there is; none: train only."""

    val_fraction: float | None = None
    """Holds out this fraction of the training split, and validates on it: the same images for every --seed."""

    def __post_init__(self) -> None:
        if self.val_fraction is not None and not 0 < self.val_fraction < 1:
            raise UsageError(f"--val-fraction must lie between 0 and 1, not {self.val_fraction}")
        if self.val_split != "auto" and self.val_fraction is not None:
            raise UsageError("--val-split names a split to validate on, --val-fraction takes a part of train: give one")


@dataclass(frozen=True)
class Sizes:
    """Sizes of images besides --size, and evaluation of mirror images."""

    start_size: int | None = None
    """Size of the training images in the first epochs; it then grows to --size. By default it is --size throughout."""

    grow_from: int = 0
    """Epochs trained at --start-size before the size grows."""

    grow_until: int = 0
    """Epochs after which the size is --size; sizes in between are multiples of 32."""

    val_size: int | None = None
    """Size of the images in evaluation; by default --size."""

    val_resize: int | None = None
    """Shorter side of the images before the centre crop in evaluation; by default 256/224 of --val-size."""

    flip_tta: bool = False
    """Evaluates each image and its mirror image, and takes the mean of the two predictions."""

    def __post_init__(self) -> None:
        check_fields(self)
        require("start_size", self.start_size, 8)
        require("val_size", self.val_size, 8)
        require("val_resize", self.val_resize, 8)
        require("grow_from", self.grow_from, 0)
        if self.grow_until < self.grow_from:
            raise UsageError(f"--grow-until must be --grow-from ({self.grow_from}) or more, not {self.grow_until}")


@dataclass(frozen=True)
class Mixing:
    """Augmentation of whole training batches, on the device where the network computes."""

    mixup: float = 0.0
    """Alpha of mixup (arXiv:1710.09412); 0: off. With --cutmix, every step takes one of the two."""

    cutmix: float = 0.0
    """Alpha of CutMix (arXiv:1905.04899); 0: off."""

    erase: float = 0.0
    """Probability of random erasing (arXiv:1708.04896), for each image."""

    def __post_init__(self) -> None:
        check_fields(self)
        for name, value in (("mixup", self.mixup), ("cutmix", self.cutmix)):
            if not 0 <= value <= 4:
                raise UsageError(f"{option(name)} must be from 0 to 4, not {value}")
        if not 0 <= self.erase <= 1:
            raise UsageError(f"--erase must be from 0 to 1, not {self.erase}")


@dataclass(frozen=True)
class Memory:
    """Options that trade time for memory, or start-up time for speed."""

    compile: bool = False
    """Compiles the network with torch.compile; the first steps then take minutes."""

    recompute: bool = False
    """Gradient checkpointing: activations inside blocks are computed again in the backward pass instead of kept."""

    offload: bool = False
    """With --parallel fsdp: weights, gradients and optimizer state live in main memory."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class Distributed:
    """How several ranks train one network."""

    parallel: Literal["ddp", "fsdp", "local-sgd"] = "ddp"
    """ddp: gradients are averaged at every step; fsdp: weights are divided over the ranks as well, for networks that
    do not fit on one; local-sgd: ranks step by themselves and average their weights every --period steps."""

    period: int = 8
    """With local-sgd: steps from one averaging of the weights to the next."""

    warm_up: int = 500
    """With local-sgd: the first steps, in which gradients are averaged as with ddp."""

    def __post_init__(self) -> None:
        check_fields(self)
        require("period", self.period, 2)
        require("warm_up", self.warm_up, 0)


def require(name: str, value: int | None, bound: int) -> None:
    """Raises UsageError for a value below `bound`."""
    if value is not None and value < bound:
        raise UsageError(f"{option(name)} must be {bound} or more, not {value}")


def require_optimizer(name: str) -> None:
    """Raises MissingDependency for an optimizer of timm's where timm is not installed."""
    if name in ("lamb", "muon") and importlib.util.find_spec("timm") is None:
        raise MissingDependency(f"--optimizer {name} is timm's, which is not installed: pip install 'shardfeed[timm]'")


def require_positive(name: str, value: float) -> None:
    """Raises UsageError for a value that is not a finite number above 0."""
    if not (value > 0 and math.isfinite(value)):
        raise UsageError(f"{option(name)} must be a number above 0, not {value}")


def option(name: str) -> str:
    """A field's name as the command line spells it."""
    return "--" + name.replace("_", "-")
