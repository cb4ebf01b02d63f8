"""What a training run is told: one frozen value, its defaults, and what it refuses."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from shards.common.errors import UsageError
from train.options import Feeding, Memory, Mixing, Sharing, Sizes, Update, option, require, require_positive

Precision = Literal["auto", "float32", "tf32", "bfloat16", "float16"]
Device = Literal["auto", "cpu", "gpu"]

# The options of a group appear without its name.
_FLAT = tyro.conf.arg(name="")


@dataclass(frozen=True)
class Config:
    """Trains an image classifier on a data set made by `python -m preprocess`.

    The options below show the values of the recipe that --recipe names. An option given beside it overrides
    the recipe's.
    """

    data: str | Path
    """Directory of the data set, or its URL."""

    recipe: str = "cnn"
    """Where the values of the other options come from."""

    out: Path = Path("Results")
    """Directory for the weights, times and metrics."""

    model: str = "cnn"
    """cnn, resnet18, resnet50, efficientnet_b0 or another of model/__init__.py."""

    blur_pool: bool = False
    """Blurs before convolutions with a stride (arXiv:1904.11486)."""

    epochs: int = 16
    """Passes over the training split."""

    size: int = 224
    """Height and width of the images that the model sees, in pixels."""

    batch: int = 64
    """Images per optimizer step, over all ranks."""

    micro_batch: int | Literal["auto"] = 16
    """Most images that one rank computes at a time; their gradients are added up to those of --batch. auto: as many
    as fit into the GPU's memory."""

    max_lr: float = 0.01
    """Peak learning rate, per optimizer step of --batch images."""

    pct_start: float = 0.3
    """Part of all optimizer steps in which the learning rate rises."""

    div_factor: float = 10.0
    """The learning rate begins at max_lr / div_factor."""

    final_div_factor: float = 100.0
    """The learning rate ends at max_lr / div_factor / final_div_factor."""

    weight_decay: float = 1e-2
    """Part of each weight, times the learning rate, that is taken off at every step; see --optimizer."""

    clip: float | None = 1.0
    """Largest L2 norm of all gradients together; None: any."""

    label_smoothing: float = 0.0
    """Part of each label that is spread over all classes while training."""

    crop: Literal["random", "rrc"] = "random"
    """How training images are cropped: random: Resize and RandomCrop; rrc: RandomResizedCrop."""

    order: Literal["global", "blocks"] = "global"
    """Order of training samples: blocks suits disks and file systems that are slow at random reads."""

    on_error: Literal["raise", "skip"] = "raise"
    """skip: replaces a damaged sample by the next whole one and counts it in the log."""

    precision: Precision = "auto"
    """Type of the arithmetic under autocast; auto: float16 on a GPU, float32 on a CPU. tf32: float32 whose products
    are rounded, on GPUs since Ampere; float32: without that."""

    seed: int = 0
    """Of the weights, dropout, sample order, crops and mixing."""

    device: Device = "auto"
    """auto: a GPU where there is one."""

    threads: int | None = None
    """Threads that decode, per rank; by default as the loader chooses."""

    log_every: int = 20
    """Optimizer steps between two lines of metrics.jsonl."""

    checkpoint_minutes: float = 10.0
    """Minutes between two checkpoints inside an epoch; one is written after every epoch in any case."""

    keep_every: int | None = None
    """Also keeps the checkpoint of every so many epochs, beside the newest two and the best."""

    resume: Literal["auto", "never"] | Path = "auto"
    """auto: goes on from the newest checkpoint in --out, where there is one; never; or the checkpoint to go on from."""

    wandb: str | None = None
    """Also sends the numbers of metrics.jsonl to this project of W&B, where it is installed."""

    check: bool = False
    """Only check the installation, the data set and a few training steps, in seconds."""

    evaluate: tuple[Path, ...] = ()
    """Only print the accuracy of these weights (.pth files or checkpoints) on the validation split."""

    find_lr: bool = False
    """Only look for a learning rate: a range test, a picture and a suggestion in --out."""

    feeding: Annotated[Feeding, _FLAT] = field(default_factory=Feeding)
    update: Annotated[Update, _FLAT] = field(default_factory=Update)
    sizes: Annotated[Sizes, _FLAT] = field(default_factory=Sizes)
    mixing: Annotated[Mixing, _FLAT] = field(default_factory=Mixing)
    memory: Annotated[Memory, _FLAT] = field(default_factory=Memory)
    sharing: Annotated[Sharing, _FLAT] = field(default_factory=Sharing)

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "log_every", "keep_every", "threads"):
            require(name, getattr(self, name), 1)
        require("size", self.size, 8)
        require("seed", self.seed, 0)
        if self.micro_batch != "auto":
            require("micro_batch", self.micro_batch, 1)
        for name in ("max_lr", "div_factor", "final_div_factor", "checkpoint_minutes"):
            require_positive(name, getattr(self, name))
        if self.clip is not None:
            require_positive("clip", self.clip)
        if not (self.weight_decay >= 0 and math.isfinite(self.weight_decay)):
            raise UsageError(f"--weight-decay must be 0 or more, not {self.weight_decay}")
        for name in ("pct_start", "label_smoothing"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{option(name)} must be from 0 to 1, not {getattr(self, name)}")
        if self.check + bool(self.evaluate) + self.find_lr > 1:
            raise UsageError("--check, --evaluate and --find-lr exclude each other")
        self._require_fit()

    def _require_fit(self) -> None:
        """Raises UsageError for options that do not fit each other."""
        if self.device == "cpu" and self.precision in ("float16", "tf32"):
            raise UsageError(f"--precision {self.precision} needs a GPU: take bfloat16 or float32 on a CPU")
        if self.sizes.start_size is not None and self.sizes.start_size > self.size:
            raise UsageError(f"--start-size {self.sizes.start_size} is more than --size {self.size}: give both")
        if self.memory.offload and self.sharing.parallel != "fsdp":
            raise UsageError("--offload needs --parallel fsdp")
        if self.sharing.parallel == "fsdp":
            if self.precision == "float16":
                raise UsageError("--parallel fsdp computes in bfloat16 or float32: give --precision bfloat16")
            if self.update.ema:
                raise UsageError("--ema needs whole weights on every rank: take --parallel ddp")
