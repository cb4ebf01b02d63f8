"""The on-disk data set and its fast reader.

    from shards import Loader, open_dataset
    split = open_dataset("DIR")["train"]
    for images, labels in Loader(split, batch_size=64, train=True): ...

`Loader` needs NVIDIA DALI; everything else here works without it. Each name is loaded when it is first used, so that
importing this package takes no time.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shards.common.errors import ShardfeedError, UsageError
    from shards.dataset import Split, concatenate, mix, open_dataset
    from shards.loader import Loader
    from shards.sampling.colour import Colour
    from shards.sampling.views import View

__all__ = [
    "Colour",
    "Loader",
    "ShardfeedError",
    "Split",
    "UsageError",
    "View",
    "concatenate",
    "mix",
    "open_dataset",
]

_MODULES = {
    "Colour": "shards.sampling.colour",
    "Loader": "shards.loader",
    "ShardfeedError": "shards.common.errors",
    "Split": "shards.dataset",
    "UsageError": "shards.common.errors",
    "View": "shards.sampling.views",
    "concatenate": "shards.dataset",
    "mix": "shards.dataset",
    "open_dataset": "shards.dataset",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'shards' has no attribute {name!r}")
