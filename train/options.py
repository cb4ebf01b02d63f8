"""The options that few runs change, in groups. `Config` holds one of each; on the command line they stand flat."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from shards.common.errors import UsageError
from shards.remote.cache import Cache, cache_home, parse_size
from shards.sampling.order import WINDOW


@dataclass(frozen=True)
class Update:
    """How a step changes the weights."""

    optimizer: Literal["adamw", "sgd"] = "adamw"
    """adamw: weight decay apart from the gradient; sgd: Nesterov momentum, weight decay as part of the gradient."""

    momentum: float = 0.9
    """Of sgd. adamw has none: its first beta follows the schedule."""

    decay: Literal["all", "kernels"] = "all"
    """Which weights decay; kernels: those of two dimensions or more, so neither norms nor biases."""

    schedule: Literal["onecycle", "linear"] = "onecycle"
    """Shape of the learning rate's rise and fall: half a cosine each, or straight lines."""

    drop_last: bool = False
    """Leaves out an epoch's last step where it has fewer images: the steps are then the same for all rank counts."""

    ema: float = 0.0
    """Decay of the moving average of the weights, which is then what is evaluated and saved; 0: none."""

    ema_every: int = 1
    """Optimizer steps between two updates of that average."""

    bad_losses: int = 5
    """Steps in a row without a finite loss after which the run ends. Their gradients are left out."""

    def __post_init__(self) -> None:
        require("ema_every", self.ema_every, 1)
        require("bad_losses", self.bad_losses, 1)
        for name, value in (("momentum", self.momentum), ("ema", self.ema)):
            if not 0 <= value < 1:
                raise UsageError(f"{option(name)} must be from 0 to below 1, not {value}")


@dataclass(frozen=True)
class Feeding:
    """How images come from the data set to the model, besides --crop and --order."""

    augment: Literal["none", "trivial", "rand", "auto"] = "none"
    """What happens to training images after the crop: TrivialAugment, RandAugment or AutoAugment."""

    window: int = WINDOW
    """Shards that --order blocks reads and mixes at a time."""

    decode: Literal["auto", "cpu", "region", "hardware"] = "auto"
    """Who decodes for a GPU: the CPU, the GPU's cores, or its JPEG engines; auto: by what the GPU has."""

    cache_dir: Path | None = None
    """Where the shards of a data set at a URL are kept; ~/.cache/shardfeed if not given."""

    cache_size: str = "100GB"
    """What they may take there."""

    def __post_init__(self) -> None:
        require("window", self.window, 1)
        # Raises where it is no size.
        _ = self.cache

    @property
    def cache(self) -> Cache:
        """Where shards of a remote data set are kept. Raises UsageError for what is no size."""
        return Cache(self.cache_dir or cache_home(), parse_size(self.cache_size))


@dataclass(frozen=True)
class Sizes:
    """Sizes of images besides --size, and what evaluation does with them."""

    start_size: int | None = None
    """Size of the first training images, which then grows to --size; by default all have --size."""

    grow_from: int = 0
    """Epochs that are trained at --start-size."""

    grow_until: int = 0
    """Epochs after which --size is reached; in between sizes are multiples of 32."""

    val_size: int | None = None
    """Size of the images in evaluation; by default --size."""

    val_resize: int | None = None
    """Their shorter side before the centre crop; by default in proportion 256 to 224."""

    flip_tta: bool = False
    """Evaluates each image and its mirror image, and takes the mean of the two."""

    def __post_init__(self) -> None:
        require("start_size", self.start_size, 8)
        require("val_size", self.val_size, 8)
        require("val_resize", self.val_resize, 8)
        require("grow_from", self.grow_from, 0)
        if self.grow_until < self.grow_from:
            raise UsageError(f"--grow-until must be --grow-from ({self.grow_from}) or more, not {self.grow_until}")


@dataclass(frozen=True)
class Mixing:
    """What is done to training batches on the device where the network computes."""

    mixup: float = 0.0
    """Alpha of mixup (arXiv:1710.09412); 0: off. With --cutmix, every step takes one of the two."""

    cutmix: float = 0.0
    """Alpha of CutMix (arXiv:1905.04899); 0: off."""

    erase: float = 0.0
    """Probability of random erasing (arXiv:1708.04896), for each image."""

    def __post_init__(self) -> None:
        for name, value in (("mixup", self.mixup), ("cutmix", self.cutmix)):
            if not 0 <= value <= 4:
                raise UsageError(f"{option(name)} must be from 0 to 4, not {value}")
        if not 0 <= self.erase <= 1:
            raise UsageError(f"--erase must be from 0 to 1, not {self.erase}")


@dataclass(frozen=True)
class Memory:
    """Time for memory, and the reverse."""

    compile: bool = False
    """Compiles the network with torch.compile; the first steps then take minutes."""

    recompute: bool = False
    """Gradient checkpointing: activations inside blocks are computed again instead of kept."""

    offload: bool = False
    """With --parallel fsdp: weights, gradients and optimizer state live in main memory."""


@dataclass(frozen=True)
class Sharing:
    """How several processes share the work."""

    parallel: Literal["ddp", "fsdp", "local-sgd"] = "ddp"
    """ddp: gradients are averaged at every step; fsdp: weights are divided over the ranks as well, for networks that
    do not fit on one; local-sgd: ranks step by themselves and average their weights every --period steps."""

    period: int = 8
    """Of local-sgd: steps between two averagings."""

    warm_up: int = 500
    """Of local-sgd: first steps, which are those of ddp."""

    def __post_init__(self) -> None:
        require("period", self.period, 2)
        require("warm_up", self.warm_up, 0)


def require(name: str, value: int | None, bound: int) -> None:
    """Raises UsageError for a value below `bound`."""
    if value is not None and value < bound:
        raise UsageError(f"{option(name)} must be {bound} or more, not {value}")


def require_positive(name: str, value: float) -> None:
    """Raises UsageError for a value that is not a finite number above 0."""
    if not (value > 0 and math.isfinite(value)):
        raise UsageError(f"{option(name)} must be a number above 0, not {value}")


def option(name: str) -> str:
    """A field's name as it stands on the command line."""
    return "--" + name.replace("_", "-")
