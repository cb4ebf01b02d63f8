"""What several benchmarks do with their options: describe a batch, complete what is left open, repeat the command."""

import shlex
from dataclasses import Field, dataclass, fields
from typing import Any, Literal

from shards.common.errors import UsageError
from shards.dataset import Split
from shards.sampling.crops import Crop
from shards.sampling.order import Order

DType = Literal["float32", "uint8"]


@dataclass(frozen=True)
class BatchSpec:
    """What a batch is.

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
    from shards.defaults import shorter_side

    if batch_size < 1:
        raise UsageError(f"the batch size must be at least 1, not {batch_size}")
    resize = shorter_side(split, size, resize, crop)
    if len(split) < batch_size:
        raise UsageError(f"{split.root}: {split.name} holds {len(split)} images, less than a batch of {batch_size}")
    return BatchSpec(batch_size, resize, size, dtype, seed, crop)


@dataclass(frozen=True)
class LoaderSettings:
    """A loader to measure: the split it reads, its batches, its order and its decoding threads."""

    split: Split
    batch: BatchSpec
    order: Order
    threads: int

    @property
    def raw(self) -> bool:
        """Whether the split stores pixels."""
        return self.split.manifest.settings.encoding == "raw"


def loader_settings(split: Split, batch: BatchSpec, order: Order, threads: int | None) -> LoaderSettings:
    """With the loader's own number of threads if none is given. Raises UsageError for fewer than one."""
    from shards.defaults import default_threads

    if threads is None:
        threads = default_threads(split.manifest.settings.encoding == "raw")
    if threads < 1:
        raise UsageError(f"the number of threads must be at least 1, not {threads}")
    return LoaderSettings(split, batch, order, threads)


def command_line(name: str, options: Any) -> str:
    """The command line of `options` (a dataclass), without options at their defaults."""
    words = ["python", "-m", "benchmarks", name]
    for each in fields(options):
        value = getattr(options, each.name)
        if value != each.default:
            words += _words(each, value)
    return shlex.join(words)


def _words(option: "Field[Any]", value: Any) -> list[str]:
    flag = f"--{option.name.replace('_', '-')}"
    return [flag, *map(str, value)] if isinstance(value, tuple) else [flag, str(value)]
