"""The on-disk data set and its fast reader.

    from shards import Loader, open_dataset
    split = open_dataset("DIR")["train"]
    for images, labels in Loader(split, batch_size=64, train=True): ...

`Loader` needs NVIDIA DALI and is loaded when first used; everything else here works without it.
"""

from typing import TYPE_CHECKING, Any

from shards.common.errors import ShardfeedError, UsageError
from shards.dataset import Split, open_dataset
from shards.sampling.colour import Colour
from shards.sampling.views import View

if TYPE_CHECKING:
    from shards.loader import Loader

__all__ = ["Colour", "Loader", "ShardfeedError", "Split", "UsageError", "View", "open_dataset"]


def __getattr__(name: str) -> Any:
    if name == "Loader":
        from shards.loader import Loader

        return Loader
    raise AttributeError(f"module 'shards' has no attribute {name!r}")
