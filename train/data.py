"""Which splits a run reads, and how: the one place where training meets the loader."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

import shards
from shards.sampling.order import Share
from train.config import Config
from train.optim.batch_split import portions, steps_per_epoch
from train.optim.sizes import training_size
from train.ranks.distributed import World

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
        batch_size=portions(config, world).micro_batch,
        train=True,
        size=training_size(config, epoch=1),
        crop=config.crop,
        order=config.order,
        augment=config.feeding.augment,
        window=config.feeding.window,
        on_error=config.on_error,
        **_shared(config, world, dtype),
    )


def rest_of_epoch(loader: "shards.Loader", config: Config, world: World) -> "Rest":
    """What the training loader's next iteration gives: a whole epoch, or what is left of one that is gone on with."""
    state, portion = loader.state_dict(), portions(config, world)
    share = Share(portion.micro_batch, world.rank, world.size, drop_last=True)
    micro_batches = share.steps(state["samples"], state["position"])
    if config.update.drop_last:
        micro_batches = steps_per_epoch(micro_batches, portion.accumulate, drop_last=True) * portion.accumulate
    return Rest(loader, micro_batches)


@dataclass(frozen=True)
class Rest:
    """The next iteration of `loader`, of which `micro_batches` are taken."""

    loader: "shards.Loader"
    micro_batches: int

    def __len__(self) -> int:
        return self.micro_batches

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(self.loader)


def held_out_loader(split: shards.Split, config: Config, world: World, dtype: torch.dtype) -> "shards.Loader":
    """Every image exactly once over all ranks, centre-cropped; batches of a whole step, as no gradients are kept."""
    return shards.Loader(
        split,
        batch_size=portions(config, world).images,
        train=False,
        size=config.sizes.val_size or config.size,
        resize=config.sizes.val_resize,
        **_shared(config, world, dtype),
    )


def _shared(config: Config, world: World, dtype: torch.dtype) -> dict[str, Any]:
    """The arguments that are the same for both loaders."""
    return {
        "seed": config.seed,
        "rank": world.rank,
        "world_size": world.size,
        "device": "gpu" if world.on_gpu else "cpu",
        "device_id": world.local_rank,
        # float16 halves what a batch occupies; autocast would make it that anyway.
        "dtype": "float16" if dtype == torch.float16 else "float32",
        "threads": config.threads,
        "decode": config.feeding.decode,
    }
