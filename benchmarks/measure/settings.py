"""What several benchmarks do with their options: describe a batch, complete what is left open, repeat the command."""

import shlex
from dataclasses import dataclass, fields
from typing import Any, Literal

from shards.common.errors import UsageError
from shards.dataset import Split
from shards.sampling.crops import Crop
from shards.sampling.order import Order

DType = Literal["float32", "uint8"]


@dataclass(frozen=True)
class BatchSpec:
    """What a batch is; the fields are arguments of `Loader`.

    resize: shorter side before the crop of "random"; size: side of the crop, both in pixels.
    crop: "random" (Resize, RandomCrop), "rrc" (torchvision's RandomResizedCrop) or "center"; the first two flip too.
    dtype: "float32" normalised by ImageNet's mean and deviation, or "uint8" pixels.
    """

    batch_size: int = 64
    resize: int = 256
    size: int = 224
    dtype: DType = "float32"
    seed: int = 0
    crop: Crop = "random"


def batch_spec(
    split: Split, *, batch_size: int, size: int, crop: Crop, dtype: DType, resize: int | None = None, seed: int = 0
) -> BatchSpec:
    """The batch that these options ask for. Raises UsageError where the split cannot give it."""
    from shards.dataset.sizes import shorter_side

    if batch_size < 1:
        raise UsageError(f"--batch-size must be 1 or more, not {batch_size}")
    resize = shorter_side(split, size, resize, crop, larger="" if resize is None else "--resize")
    if len(split) < batch_size:
        raise UsageError(f"{split.root}: {split.name} holds {len(split)} images, less than a batch of {batch_size}")
    return BatchSpec(batch_size, resize, size, dtype, seed, crop)


@dataclass(frozen=True)
class LoaderSettings:
    """A loader to measure: the split it reads, its batches, its order and its threads, by default its own number."""

    split: Split
    batch: BatchSpec
    order: Order = "global"
    wanted_threads: int | None = None

    @property
    def raw(self) -> bool:
        """Whether the split stores pixels."""
        return self.split.manifest.settings.encoding == "raw"

    @property
    def threads(self) -> int:
        """Raises UsageError for a number that no machine can use."""
        from shards.defaults import choose_threads

        return choose_threads(self.wanted_threads, self.raw)


def command_line(name: str, options: Any) -> str:
    """The command line of `options` (a dataclass), without options at their defaults."""
    words = ["python", "-m", "benchmarks", name]
    for field in fields(options):
        value, option = getattr(options, field.name), field.name.replace("_", "-")
        if value == field.default:
            continue
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        else:
            words += [f"--{option}", *map(str, value if isinstance(value, tuple) else [value])]
    return shlex.join(words)
