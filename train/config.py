"""The options of a training run: one frozen value, with defaults and checks."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from shards.common.arguments import check_fields
from shards.common.cli import Group
from shards.common.errors import UsageError
from shards.common.machine import check_workers
from train.options import (
    Distributed,
    Feeding,
    Memory,
    Mixing,
    Pixels,
    Samples,
    Sizes,
    Start,
    Update,
    Validation,
    option,
    require,
    require_positive,
)

Precision = Literal["auto", "float32", "tf32", "bfloat16", "float16"]
Device = Literal["auto", "cpu", "gpu"]

# In place of a data set, with --eval-set.
NO_DATA = Path()
# The command line shows the options of a nested dataclass without its name.
_FLAT = tyro.conf.arg(name="")

# Titles in the help; options without one come first.
BEGINNING = Group("Pretrained weights and fine-tuning")
STEPS = Group("Steps, learning rate and loss")
IMAGES = Group("Reading, cropping and augmenting images")
RESULTS = Group("Log and checkpoints")
INSTEAD = Group("In place of training")
SAMPLES = Group("Samples and classes")
SIZES = Group("Sizes of images that change, and evaluation")
MIXING = Group("Mixing within batches")
MEMORY = Group("Memory and compilation")
RANKS = Group("Several ranks")


@dataclass(frozen=True)
class Config:
    """Trains an image classifier on a data set made by `python -m preprocess`.

    The options below show the values of the recipe that --recipe names. An option given beside it overrides
    the recipe's.
    """

    data: Annotated[str | Path, tyro.conf.arg(metavar="DIR")]
    """Directory of the data set, or its URL."""

    recipe: str = "cnn"
    """The recipe that sets the values of the other options: cnn, demo, smoke, rn18_16, rn18_88, rn50_16, rn50_88,
    rn50_a2, rn50_a3, efficientnet_b0, convnext_t, deit_s or vit_s16_90."""

    out: Path = Path("Results")
    """Directory for the weights, metrics and checkpoints."""

    model: str = "cnn"
    """The network: cnn, resnet18, resnet34, resnet50, resnet101, efficientnet_b0 or convnext_tiny; or timm: and a name
    of timm's, such as timm:vit_small_patch16_224.augreg_in21k_ft_in1k."""

    blur_pool: bool = False
    """Blur before convolutions with a stride (arXiv:1904.11486)."""

    drop_path: float | None = None
    """Stochastic depth (arXiv:1603.09382): the chance with which the last residual block is left out while training,
    earlier ones less often; None: the network's own."""

    epochs: int = 16
    """Passes over the training split."""

    size: int = 224
    """Height and width of the images that the model sees, in pixels."""

    batch: Annotated[int, tyro.conf.arg(name="batch-size", aliases=("--batch",))] = 64
    """Images per optimizer step, over all ranks."""

    micro_batch: int | Literal["auto"] = 16
    """Most images that one rank computes at a time; gradients are accumulated up to
    --batch-size. auto: as many as fit into
    the GPU's memory."""

    max_lr: float = 0.01
    """Peak learning rate, for optimizer steps of --batch-size images."""

    pct_start: Annotated[float, STEPS] = 0.3
    """Fraction of all optimizer steps in which the learning rate rises."""

    div_factor: Annotated[float, STEPS] = 10.0
    """The learning rate begins at --max-lr / --div-factor."""

    final_div_factor: Annotated[float, STEPS] = 100.0
    """The learning rate ends at --max-lr / --div-factor / --final-div-factor."""

    weight_decay: Annotated[float, STEPS] = 1e-2
    """Weight decay: at every step a weight loses this fraction of itself, times the learning rate; see --optimizer."""

    clip: Annotated[float | None, STEPS] = 1.0
    """Gradients are scaled down to this L2 norm where theirs is larger; None: never."""

    label_smoothing: Annotated[float, STEPS] = 0.0
    """Fraction of each label that is spread over all classes while training."""

    crop: Annotated[Literal["random", "rrc"], IMAGES] = "random"
    """How training images are cropped: random: Resize and RandomCrop; rrc: RandomResizedCrop."""

    order: Annotated[Literal["global", "blocks"], IMAGES] = "global"
    """Order of training samples: global: one shuffle of the whole split; blocks: shuffled inside blocks of --window
    shards, for disks and file systems that are slow at random reads."""

    on_error: Annotated[Literal["raise", "skip"], IMAGES] = "raise"
    """What a damaged sample does: raise: ends the run; skip: in training the next whole sample takes its place; in
    validation it is left out, and the accuracy is that of the others. The log counts both."""

    precision: Precision = "auto"
    """Type that autocast computes in; auto: float16 on a GPU, float32 on a CPU. tf32: float32 with products rounded to
    TF32, on GPUs since Ampere; float32: without rounding."""

    seed: int = 0
    """Seed of the weights, dropout, sample order, crops and mixing."""

    device: Device = "auto"
    """What computes; auto: a GPU if there is one."""

    threads: int | None = None
    """Decoding threads per rank; by default the loader chooses."""

    log_every: Annotated[int, RESULTS] = 20
    """Optimizer steps from one line of metrics.jsonl to the next."""

    checkpoint_minutes: Annotated[float, RESULTS] = 10.0
    """Minutes from one checkpoint to the next inside an epoch; every epoch ends with one."""

    keep_every: Annotated[int | None, RESULTS] = None
    """Also keeps the checkpoint of every n-th epoch, beside the newest two and the best."""

    resume: Literal["auto", "never"] | Path = "auto"
    """What the run goes on from: auto: the newest checkpoint in --out, if there is one; never: nothing; or the path of
    a checkpoint."""

    wandb: Annotated[str | None, RESULTS] = None
    """Also sends the numbers of metrics.jsonl to this project of W&B, where it is installed."""

    check: Annotated[bool, INSTEAD] = False
    """Only checks the installation, the data set and a few training steps, in seconds."""

    evaluate: Annotated[tuple[Path, ...], INSTEAD] = ()
    """Only prints the accuracy of these weights on the validation split: .pth files, checkpoints, or names of models,
    whose published weights are meant."""

    eval_set: Annotated[tuple[str, ...], tyro.conf.arg(metavar="DIR"), INSTEAD] = ()
    """With --evaluate, in place of --data: other data sets, each a directory or URL. Their classes are matched by name;
    of fewer classes only the logits are compared."""

    real_labels: Annotated[Path | None, INSTEAD] = None
    """With --evaluate: ReaL's real.json, which has several right classes for each validation image of ImageNet."""

    find_lr: Annotated[bool, INSTEAD] = False
    """Only looks for a learning rate: writes a range test, a picture and a suggestion to --out."""

    start: Annotated[Start, _FLAT, BEGINNING] = field(default_factory=Start)
    samples: Annotated[Samples, _FLAT, SAMPLES] = field(default_factory=Samples)
    validation: Annotated[Validation, _FLAT, SIZES] = field(default_factory=Validation)
    pixels: Annotated[Pixels, _FLAT, IMAGES] = field(default_factory=Pixels)
    feeding: Annotated[Feeding, _FLAT, IMAGES] = field(default_factory=Feeding)
    update: Annotated[Update, _FLAT, STEPS] = field(default_factory=Update)
    sizes: Annotated[Sizes, _FLAT, SIZES] = field(default_factory=Sizes)
    mixing: Annotated[Mixing, _FLAT, MIXING] = field(default_factory=Mixing)
    memory: Annotated[Memory, _FLAT, MEMORY] = field(default_factory=Memory)
    distributed: Annotated[Distributed, _FLAT, RANKS] = field(default_factory=Distributed)

    def __post_init__(self) -> None:
        check_fields(self, unset=tyro.MISSING)
        require("batch_size", self.batch, 1)
        for name in ("epochs", "log_every", "keep_every"):
            require(name, getattr(self, name), 1)
        if self.threads is not None:
            check_workers("--threads", self.threads)
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
        if self.drop_path is not None and not 0 <= self.drop_path < 1:
            raise UsageError(f"--drop-path must be from 0 to below 1, not {self.drop_path}")
        if self.update.loss == "bce" and self.label_smoothing:
            raise UsageError("--loss bce has no --label-smoothing: give 0, or --loss ce")
        for name in ("pct_start", "label_smoothing"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{option(name)} must be from 0 to 1, not {getattr(self, name)}")
        if self.check + bool(self.evaluate) + self.find_lr > 1:
            raise UsageError("--check, --evaluate and --find-lr exclude each other")
        if self.eval_set and (not self.evaluate or self.data != NO_DATA):
            raise UsageError("--eval-set is for --evaluate, and takes the place of --data: give the data there")
        if self.eval_set and (self.samples != Samples() or self.validation != Validation()):
            raise UsageError(
                "--eval-set takes whole sets: leave out --subset, --class-map, --val-split, --val-fraction"
            )
        if self.real_labels is not None and not self.evaluate:
            raise UsageError("--real-labels is for --evaluate")
        if self.evaluate and self.validation.val_split == "none":
            raise UsageError("--evaluate needs a split: leave out --val-split none")
        self._require_fit()

    def _require_fit(self) -> None:
        """Raises UsageError for options that contradict each other."""
        if self.device == "cpu" and self.precision in ("float16", "tf32"):
            raise UsageError(f"--precision {self.precision} needs a GPU: take bfloat16 or float32 on a CPU")
        if self.sizes.start_size is not None and self.sizes.start_size > self.size:
            raise UsageError(f"--start-size {self.sizes.start_size} is more than --size {self.size}: give both")
        if self.feeding.pad and self.crop != "random":
            raise UsageError(f"--pad is for --crop random, not {self.crop}")
        smallest = self.sizes.start_size or self.size
        if self.feeding.pad >= smallest:
            raise UsageError(
                f"--pad must be less than the {smallest} pixels of a training image, not {self.feeding.pad}"
            )
        if self.memory.offload and self.distributed.parallel != "fsdp":
            raise UsageError("--offload needs --parallel fsdp")
        if self.distributed.parallel == "fsdp":
            if self.precision == "float16":
                raise UsageError("--parallel fsdp computes in bfloat16 or float32: give --precision bfloat16")
            if self.update.ema:
                raise UsageError("--ema needs whole weights on every rank: take --parallel ddp")
