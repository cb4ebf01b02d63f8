"""Which splits a run reads, and how: the one place where training meets the loader."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

import shards
from shards.order import Share
from train.config import Config
from train.distributed import World

TRAINING = "train"
HELD_OUT = ("validation", "test")


class Batches(Protocol):
    """What the loops need of a loader: one epoch of (images (B, 3, H, W), labels (B,) int64), and its length."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]: ...


# The type is in quotes because looking it up would load DALI, which importing this module need not.
def training_loader(split: shards.Split, config: Config, world: World, dtype: torch.dtype) -> "shards.Loader":
    """Full micro-batches in a new order each epoch, for this rank; what does not fill one on every rank is left out."""
    return shards.Loader(
        split,
        batch_size=config.micro_batch,
        train=True,
        crop=config.crop,
        order=config.order,
        on_error=config.on_error,
        **_shared(config, world, dtype),
    )


def rest_of_epoch(loader: "shards.Loader", config: Config, world: World) -> "Rest":
    """What the training loader's next iteration gives: a whole epoch, or what is left of one that is gone on with."""
    state = loader.state_dict()
    share = Share(config.micro_batch, world.rank, world.size, drop_last=True)
    return Rest(loader, share.steps(state["samples"], state["position"]))


@dataclass(frozen=True)
class Rest:
    """The next iteration of `loader`, which gives `micro_batches`."""

    loader: "shards.Loader"
    micro_batches: int

    def __len__(self) -> int:
        return self.micro_batches

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(self.loader)


def held_out_loader(split: shards.Split, config: Config, world: World, dtype: torch.dtype) -> "shards.Loader":
    """Every image exactly once over all ranks, centre-cropped; batches of a whole step, as no gradients are kept."""
    batch_size = config.micro_batch * config.accumulate
    return shards.Loader(split, batch_size=batch_size, train=False, **_shared(config, world, dtype))


def _shared(config: Config, world: World, dtype: torch.dtype) -> dict[str, Any]:
    """The arguments that are the same for both loaders."""
    return {
        "size": config.size,
        "seed": config.seed,
        "rank": world.rank,
        "world_size": world.size,
        "device": "gpu" if world.on_gpu else "cpu",
        "device_id": world.local_rank,
        # float16 halves what a batch occupies; autocast would make it that anyway.
        "dtype": "float16" if dtype == torch.float16 else "float32",
        "threads": config.threads,
    }
