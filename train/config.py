"""What a training run is told: one frozen value, its defaults, and what it refuses."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from shards.errors import UsageError

Precision = Literal["auto", "float32", "bfloat16", "float16"]
Device = Literal["auto", "cpu", "gpu"]


@dataclass(frozen=True)
class Config:
    """Trains an image classifier on a data set made by `python -m preprocess`.

    The options below show the values of the recipe that --recipe names. An option given beside it overrides
    the recipe's.
    """

    data: Path
    """Directory of the data set."""

    recipe: str = "cnn"
    """Where the values of the other options come from."""

    out: Path = Path("Results")
    """Directory for the weights, times and metrics."""

    model: str = "cnn"
    """cnn, resnet18, resnet50 or efficientnet_b0."""

    epochs: int = 16
    """Passes over the training split."""

    size: int = 224
    """Height and width of the images that the model sees, in pixels."""

    micro_batch: int = 16
    """Images that one rank computes at a time."""

    accumulate: int = 4
    """Micro-batches per optimizer step; the last step of an epoch may have fewer."""

    max_lr: float = 0.01
    """Peak learning rate, per optimizer step of the whole global batch."""

    pct_start: float = 0.3
    """Part of all optimizer steps in which the learning rate rises."""

    div_factor: float = 10.0
    """The learning rate begins at max_lr / div_factor."""

    final_div_factor: float = 100.0
    """The learning rate ends at max_lr / div_factor / final_div_factor."""

    weight_decay: float = 1e-2
    """AdamW's decoupled weight decay."""

    clip: float = 1.0
    """Largest L2 norm of all gradients together."""

    crop: Literal["random", "rrc"] = "random"
    """How training images are cropped: random: Resize and RandomCrop; rrc: RandomResizedCrop."""

    order: Literal["global", "blocks"] = "global"
    """Order of training samples: blocks suits disks and file systems that are slow at random reads."""

    on_error: Literal["raise", "skip"] = "raise"
    """skip: replaces a damaged sample by the next whole one and counts it in the log."""

    precision: Precision = "auto"
    """Type of the arithmetic under autocast; auto: float16 on a GPU, float32 on a CPU."""

    seed: int = 0
    """Of the weights, dropout, sample order and crops."""

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

    check: bool = False
    """Only check the installation, the data set and a few training steps, in seconds."""

    evaluate: Path | None = None
    """Only print the accuracy of these weights (a .pth file) on the validation split."""

    def __post_init__(self) -> None:
        counts = ("epochs", "micro_batch", "accumulate", "log_every", "keep_every", "threads")
        for name, bound in {**dict.fromkeys(counts, 1), "size": 8, "seed": 0}.items():
            value = getattr(self, name)
            if value is not None and value < bound:
                raise UsageError(f"{_option(name)} must be {bound} or more, not {value}")
        for name in ("max_lr", "div_factor", "final_div_factor", "clip", "checkpoint_minutes"):
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                raise UsageError(f"{_option(name)} must be a number above 0, not {value}")
        if not (self.weight_decay >= 0 and math.isfinite(self.weight_decay)):
            raise UsageError(f"--weight-decay must be 0 or more, not {self.weight_decay}")
        if not 0 <= self.pct_start <= 1:
            raise UsageError(f"--pct-start must be from 0 to 1, not {self.pct_start}")
        if self.device == "cpu" and self.precision == "float16":
            raise UsageError("--precision float16 needs a GPU: take bfloat16 or float32 on a CPU")
        if self.check and self.evaluate is not None:
            raise UsageError("--check and --evaluate exclude each other")


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
