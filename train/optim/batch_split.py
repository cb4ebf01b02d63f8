"""How the images of an optimizer step are shared by ranks and computed in portions that fit into memory."""

import math
from dataclasses import dataclass

from shards.common.errors import UsageError
from train.config import Config
from train.ranks.distributed import World

# What --micro-batch auto means on a CPU, where memory is not what limits it.
ON_A_CPU = 16


@dataclass(frozen=True)
class Portions:
    """A rank computes `accumulate` micro-batches of `micro_batch` images in each optimizer step."""

    micro_batch: int
    accumulate: int

    @property
    def images(self) -> int:
        """Images of one rank in an optimizer step that is not cut short by the epoch's end."""
        return self.micro_batch * self.accumulate


def portions(config: Config, world: World) -> Portions:
    """The fewest equal portions of a rank's share of `config.batch` that are no larger than `config.micro_batch`.

    So the images of a step are the same on any number of ranks. Raises UsageError where the batch cannot be shared.
    """
    share, rest = divmod(config.batch, world.size)
    if rest:
        raise UsageError(f"--batch {config.batch} cannot be shared by {world.size} ranks: choose a multiple of them")
    largest = ON_A_CPU if config.micro_batch == "auto" else config.micro_batch
    accumulate = math.ceil(share / largest)
    while share % accumulate:
        accumulate += 1
    return Portions(share // accumulate, accumulate)


def steps_per_epoch(micro_batches: int, accumulate: int, drop_last: bool = False) -> int:
    """Optimizer steps of an epoch: the incomplete group of micro-batches at its end is a step, unless dropped."""
    return micro_batches // accumulate if drop_last else math.ceil(micro_batches / accumulate)
