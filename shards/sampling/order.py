"""Which sample ids, in which order, for which rank: pure functions, no state.

A *position* is a place in the global order of an epoch; a *sample id* is a row of the split's index. The global batch
that starts at position p is the positions [p, p + B * W) for a batch of B on each of W ranks, and rank r takes p + r, p
+ r + W, p + r + 2W, ... of them. So the samples of a global batch do not depend on how many ranks share it, and an
epoch can be entered at any position, with any number of ranks, at no cost but that of the permutation.
"""

import functools
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from shards.common.errors import UsageError
from shards.sampling.hashing import bits, permutation

# global: a permutation of the whole split. blocks: shards in random order, a shuffle block of them at a time read
# and shuffled together. index: as stored.
Order = Literal["global", "blocks", "index"]
ORDERS: tuple[Order, ...] = ("global", "blocks", "index")

# Shards in a shuffle block by default: 16,000 samples of ImageNet in shards of 1,000, 0.5 GB at 256 pixels.
# docs/decisions.md has what other sizes do to the shuffle.
BLOCK_SHARDS = 16

# The stream that chooses the samples that are held out of training.
HELD_OUT = 0x4845

# The purposes of the numbers drawn for (seed, epoch): the last part of the stream in shards/sampling/hashing.py.
ORDER, TOP, LEFT, FLIP, AREA, RATIO, SHARDS = range(7)


@dataclass(frozen=True)
class Share:
    """One rank's share of every global batch."""

    batch_size: int
    """Samples a step on this rank."""
    rank: int = 0
    world_size: int = 1
    drop_last: bool = False
    """Leave out a last global batch that is not full, so that all ranks take the same number of steps."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UsageError(f"batch_size must be at least 1, not {self.batch_size}")
        if self.world_size < 1 or not 0 <= self.rank < self.world_size:
            raise UsageError(f"rank must be in [0, world_size), not {self.rank} of {self.world_size}")

    @property
    def global_batch(self) -> int:
        """Samples a step over all ranks."""
        return self.batch_size * self.world_size

    def steps(self, samples: int, position: int = 0) -> int:
        """Steps of this rank in the rest of an epoch of `samples` samples, entered at `position`."""
        rest = samples - position
        if self.drop_last:
            return max(0, rest // self.global_batch)
        mine = max(0, -(-(rest - self.rank) // self.world_size))
        return -(-mine // self.batch_size)

    def take(self, order: npt.NDArray[np.int64], position: int) -> npt.NDArray[np.int64]:
        """The sample ids of this rank in the global batch at `position`: fewer than batch_size only at the end."""
        return order[position + self.rank : position + self.global_batch : self.world_size]


def held_out(samples: int, fraction: float) -> npt.NDArray[np.bool_]:
    """Which of `samples` samples are held out of training, (samples,): a random `fraction` of them, always the same.

    At least one is held out, and one is left. A larger fraction holds out the same samples and more.
    """
    chosen = np.zeros(samples, bool)
    chosen[permutation(samples, 0, HELD_OUT)[: held_out_count(samples, fraction)]] = True
    return chosen


def held_out_count(samples: int, fraction: float) -> int:
    """How many samples `held_out` chooses."""
    return min(max(1, round(samples * fraction)), samples - 1)


def epoch_order(
    shard: npt.NDArray[np.int32], order: Order, seed: int, epoch: int, block_shards: int = BLOCK_SHARDS
) -> npt.NDArray[np.int64]:
    """The sample id at each position of an epoch, int64 (n,), for samples that lie in the shards `shard` (n,).

    `block_shards`: shards in a shuffle block. About 0.2 s for 1.28 million samples.
    """
    samples = len(shard)
    if order == "index":
        return np.arange(samples)
    if order == "global":
        return permutation(samples, seed, epoch, ORDER)
    # The block's number above, 44 of the 64 random bits below: one sort orders the blocks and shuffles inside each.
    block = block_of_shard(int(shard.max(initial=-1)) + 1, seed, epoch, block_shards).astype(np.uint64)[shard]
    inside = bits(np.arange(samples), seed, epoch, ORDER) >> np.uint64(20)
    return np.argsort((block << np.uint64(44)) | inside, kind="stable")


def upcoming(
    shard: npt.NDArray[np.int32], order: npt.NDArray[np.int64], share: Share, position: int, horizon: int
) -> list[int]:
    """The shards that a rank needs at the positions [position, position + horizon) of an epoch, by first use.

    `shard` (n,): the shard of each sample id; `order`: the epoch's ids or draws (see draw.py). 20 ns a sample.
    """
    mine = shard[order[position + share.rank : position + horizon : share.world_size] % len(shard)]
    numbers, first = np.unique(mine, return_index=True)
    return [int(number) for number in numbers[np.argsort(first)]]


@functools.lru_cache(maxsize=4)
def block_of_shard(shards: int, seed: int, epoch: int, block_shards: int = BLOCK_SHARDS) -> npt.NDArray[np.int64]:
    """The shuffle block of each shard in this epoch, (shards,), for the order "blocks"."""
    place = np.empty(shards, np.int64)
    place[permutation(shards, seed, epoch, SHARDS)] = np.arange(shards)
    blocks = place // block_shards
    blocks.flags.writeable = False
    return blocks
