"""Memory of the GPU: the largest micro-batch that fits, and what to change when none is left."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import nn

from shards.common.errors import ShardfeedError
from train.config import Config
from train.ranks.distributed import World, max_over_ranks

# What --micro-batch auto means on a CPU, where memory is not the limit.
ON_A_CPU = 16


@contextmanager
def memory_advice(config: Config, micro_batch: int, ranks: int) -> Iterator[None]:
    """Turns running out of the GPU's memory into a ShardfeedError that says what to change."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        smaller = f"--micro-batch {micro_batch // 2} or auto" if micro_batch > 1 else "a smaller --size"
        unused = [] if config.memory.recompute else ["--recompute"]
        if ranks > 1 and not config.memory.offload:
            unused.append("--parallel fsdp --offload")
        more = f", or add {' or '.join(unused)}" if unused else ""
        raise ShardfeedError(
            f"the GPU has no memory left for micro-batches of {micro_batch} images of {config.size} pixels: give "
            f"{smaller} (the images of an optimizer step stay {config.batch}){more}"
        ) from error


def choose_micro_batch(network: nn.Module, config: Config, world: World, dtype: torch.dtype) -> int:
    """The most images that one rank computes at a time: as configured, and for "auto" what fits on every rank.

    On a GPU, "auto" tries a rank's whole part of the batch on random images, then half of it, and so on; the network,
    which is not yet wrapped for several ranks, stays as it is. On a CPU it means 16.
    """
    if config.micro_batch != "auto":
        return config.micro_batch
    if not world.on_gpu:
        return ON_A_CPU
    with torch.random.fork_rng([world.device]):
        fitting = halve_until(
            lambda size: _try(network, config, world, dtype, size), max(1, config.batch // world.size)
        )
    return -int(max_over_ranks(torch.tensor(-float(fitting)), world))


def halve_until(attempt: Callable[[int], None], size: int) -> int:
    """The largest of size, size / 2, size / 4, ... (rounded up) for which `attempt` does not run out of memory.

    Raises ShardfeedError if not even 1 fits.
    """
    while True:
        try:
            attempt(size)
        except torch.OutOfMemoryError:
            if size == 1:
                raise ShardfeedError(
                    "the GPU has no memory even for a micro-batch of one image: take a smaller --size, or --recompute"
                ) from None
            size = (size + 1) // 2
        else:
            return size


def _try(network: nn.Module, config: Config, world: World, dtype: torch.dtype, size: int) -> None:
    """A forward and a backward pass of `size` images, beside as much memory as optimizer and average will take."""
    side = max(config.size, config.sizes.val_size or 0)
    kept = [buffer.clone() for buffer in network.buffers()]
    copies = 3 + bool(config.update.ema)  # two moments and the gradients' buckets
    try:
        _reserve = [torch.empty_like(each) for each in network.parameters() for _ in range(copies)]
        images = torch.randn(size, 3, side, side, device=world.device).contiguous(memory_format=torch.channels_last)
        labels = torch.zeros(size, dtype=torch.int64, device=world.device)
        network.train()
        with torch.autocast(world.device.type, dtype, enabled=dtype != torch.float32):
            loss = F.cross_entropy(network(images), labels)
        loss.backward()  # type: ignore[no-untyped-call]
    finally:
        network.zero_grad(set_to_none=True)
        for buffer, before in zip(network.buffers(), kept, strict=True):
            buffer.copy_(before)
        torch.cuda.empty_cache()
