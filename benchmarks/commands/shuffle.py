"""python -m benchmarks shuffle: how well an epoch's order mixes samples that lie side by side on disk.

Two figures for each order, both computed from the order itself, for shards that lie one after the other:

- together: how often two neighbours on disk (samples i and i + 1 of one shard) fall into the same global batch;
- shards in a batch: from how many shards a global batch's samples come.

Beside the loader's orders stands a shuffle buffer, as readers of tar files in sequence use it: shards in random order,
a buffer of that many samples, and each sample that comes in puts out a random one of those in the buffer.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import numpy as np
import numpy.typing as npt
import tyro

from benchmarks.measure.progress import watched
from benchmarks.report.table import columns
from shards.common.cli import show_result
from shards.common.errors import UsageError
from shards.common.terminal import counted
from shards.sampling.hashing import integers, permutation
from shards.sampling.order import Order, epoch_order

BLOCKS = (1, 4, 16, 64, 256)
BUFFERS = (1_000, 10_000)


@dataclass(frozen=True)
class Options:
    """Prints how well each order of an epoch mixes neighbours on disk."""

    samples: int = 1_281_167
    """Samples of the split; ImageNet's training images if not given."""
    shard_size: int = 1000
    """Samples in a shard."""
    batch: Annotated[int, tyro.conf.arg(name="batch-size", aliases=("--batch",))] = 256
    """Samples of a global batch."""
    seed: int = 0
    """Seed of the orders."""

    def __post_init__(self) -> None:
        if not 2 <= self.batch <= self.samples or self.shard_size < 2:
            raise UsageError("--batch-size must be from 2 to --samples, and --shard-size 2 or more")


@dataclass(frozen=True)
class Mixing:
    """`together`: the share of neighbours on disk that meet in one batch. `shards`: shards in a batch, on average."""

    together: float
    shards: float


def measure(order: npt.NDArray[np.int64], shard: npt.NDArray[np.int32], batch: int) -> Mixing:
    """The mixing of `order`, (n,) sample ids, for samples in shards `shard` (n,), in full batches of `batch`."""
    batch_of = np.empty(len(order), np.int64)
    batch_of[order] = np.arange(len(order)) // batch
    neighbours = shard[1:] == shard[:-1]
    whole = order[: len(order) // batch * batch].reshape(-1, batch)
    rows = np.sort(shard[whole], axis=1)
    return Mixing(
        together=float((batch_of[1:] == batch_of[:-1])[neighbours].mean()),
        shards=float(1 + (np.diff(rows, axis=1) != 0).sum(axis=1).mean()),
    )


def buffered(shard: npt.NDArray[np.int32], size: int, seed: int) -> npt.NDArray[np.int64]:
    """The order of a shuffle buffer of `size` samples over shards in random order: (n,) sample ids."""
    samples = len(shard)
    turn = permutation(int(shard.max(initial=0)) + 1, seed, 0)
    incoming = np.argsort(turn[shard], kind="stable").tolist()
    chosen = integers(np.arange(samples), np.full(samples, size), seed, 1).tolist()
    buffer, out = incoming[:size], []
    for sample, position in zip(incoming[size:], chosen, strict=False):
        out.append(buffer[position])
        buffer[position] = sample
    rest = np.array(buffer, np.int64)
    return np.concatenate([np.array(out, np.int64), rest[permutation(len(rest), seed, 2)]])


def run(options: Options) -> None:
    """Prints the table."""
    shard = (np.arange(options.samples) // options.shard_size).astype(np.int32)

    def own(order: Order, window: int = 1) -> npt.NDArray[np.int64]:
        return epoch_order(shard, order, options.seed, 0, window)

    orders: dict[str, Callable[[], npt.NDArray[np.int64]]] = {"global": partial(own, "global")}
    orders |= {f"blocks, window {shards}": partial(own, "blocks", shards) for shards in reversed(BLOCKS)}
    buffers = [size for size in reversed(BUFFERS) if size < options.samples]
    orders |= {f"buffer of {size:,}": partial(buffered, shard, size, options.seed) for size in buffers}
    orders["index"] = partial(own, "index")
    rows = [["order", "together", "shards in a batch"]]
    mixings: dict[str, Mixing] = {}
    for name in watched(list(orders), str, "order"):
        mixings[name] = mixing = measure(orders[name](), shard, options.batch)
        rows.append([name, f"{100 * mixing.together:.3f}%", f"{mixing.shards:.1f}"])
    print(f"{options.samples:,} samples, {counted(int(shard[-1]) + 1, 'shard')}, batches of {options.batch}")
    print("\n".join(columns(rows)))
    show_result(mixings)
