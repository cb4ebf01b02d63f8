"""What several benchmarks do with their options: find what they leave open, and say them as a command line."""

import shlex
from dataclasses import Field, fields
from typing import TYPE_CHECKING, Any, Literal

from shards.common.errors import UsageError
from shards.dataset import Split
from shards.sampling.crops import Crop
from shards.sampling.order import Order

if TYPE_CHECKING:
    from benchmarks.ladder.rungs import Work


def settle(
    split: Split,
    *,
    batch_size: int,
    size: int,
    resize: int | None,
    crop: Crop,
    order: Order,
    dtype: Literal["float32", "uint8"],
    threads: int | None,
) -> "Work":
    """The work that these options ask for. Raises UsageError for what does not fit the split."""
    from benchmarks.ladder.rungs import Work
    from shards.loader import RESIZE, SIZE, default_threads

    stored = split.manifest.settings.short_side
    if resize is None:
        resize = round(size * RESIZE / SIZE)
        resize = resize if stored is None else min(resize, stored)
    raw = split.manifest.settings.encoding == "raw"
    threads = default_threads(raw) if threads is None else threads
    if batch_size < 1 or threads < 1:
        raise UsageError("the batch size and the number of threads must be at least 1")
    if size < 1 or (crop != "rrc" and size > resize):
        raise UsageError(f"a crop of {size} pixels does not fit into a shorter side of {resize}")
    if len(split) < batch_size:
        raise UsageError(f"{split.root}: {split.name} holds {len(split)} images, less than a batch of {batch_size}")
    return Work(split, batch_size, size, resize, crop, order, dtype, threads)


def command_line(name: str, options: Any) -> str:
    """The command that these options (a dataclass) came from, without those at their defaults."""
    words = ["python", "-m", "benchmarks", name]
    for field in fields(options):
        value = getattr(options, field.name)
        if value != field.default:
            words += _words(field, value)
    return shlex.join(words)


def _words(field: "Field[Any]", value: Any) -> list[str]:
    flag = f"--{field.name.replace('_', '-')}"
    return [flag, *map(str, value)] if isinstance(value, tuple) else [flag, str(value)]
