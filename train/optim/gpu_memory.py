"""Memory of the GPU: the largest micro-batch that fits, and what to change when none is left."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import nn

from shards.common.errors import OutOfMemory, ShardfeedError
from shards.decode import DECODED_TOGETHER
from train.config import Config
from train.ranks.distributed import World, max_over_ranks

# Errors of cuDNN, cuBLAS and kernels that a smaller micro-batch avoids.
_TOO_MUCH = re.compile(
    r"out of memory|CUDNN_STATUS_(ALLOC_FAILED|INTERNAL_ERROR|NOT_SUPPORTED)|CUBLAS_STATUS_ALLOC_FAILED"
    r"|32-?bit ind|canUse32BitIndexMath",
    re.IGNORECASE,
)
# What the search for a micro-batch leaves free: the loader's batches that are decoded, ready, handed over or in use,
# and, in bytes, what NCCL, DALI's decoder and cuDNN's workspace take. Estimates, as no GPU was there to measure on.
LOADER_BATCHES = 8
LEFT_FREE = 2 << 30
# What --micro-batch auto means on a CPU, where memory is not the limit.
ON_A_CPU = 16


@contextmanager
def memory_advice(config: Config, micro_batch: int, ranks: int) -> Iterator[None]:
    """Turns running out of the GPU's memory into a ShardfeedError that says what to change."""
    try:
        yield
    except (RuntimeError, OutOfMemory) as error:  # OutOfMemory: of the loader, on the same GPU
        if not out_of_memory(error):
            raise
        smaller = f"--micro-batch {micro_batch // 2} or auto" if micro_batch > 1 else "a smaller --size"
        unused = [] if config.memory.recompute else ["--recompute"]
        if ranks > 1 and not config.memory.offload:
            unused.append("--parallel fsdp --offload")
        more = f", or add {' or '.join(unused)}" if unused else ""
        raise ShardfeedError(
            f"the GPU has no memory left for micro-batches of {micro_batch} images of {config.size} pixels: give "
            f"{smaller} (the images of an optimizer step stay {config.batch}){more}"
        ) from error


def out_of_memory(error: Exception) -> bool:
    """Whether an error means that the GPU's memory does not suffice: cuDNN and cuBLAS have no type of their own for it.

    An index beyond 32 bits in a kernel means the same for a micro-batch: fewer images.
    """
    return isinstance(error, torch.OutOfMemoryError | OutOfMemory) or _TOO_MUCH.search(str(error)) is not None


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
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            if size == 1:
                raise ShardfeedError(
                    "the GPU has no memory even for a micro-batch of one image: take a smaller --size, or --recompute"
                ) from None
            size = (size + 1) // 2
        else:
            return size


def _try(network: nn.Module, config: Config, world: World, dtype: torch.dtype, size: int) -> None:
    """A forward and a backward pass of `size` images, beside what all others will take of the memory."""
    side = max(config.size, config.sizes.val_size or 0)
    kept = [buffer.clone() for buffer in network.buffers()]
    copies = 3 + bool(config.update.ema)  # two moments and the gradients' buckets
    try:
        _reserve = [torch.empty_like(each) for each in network.parameters() for _ in range(copies)]
        decoded = max(size, DECODED_TOGETHER)
        _loader = torch.empty((LOADER_BATCHES, decoded, 3, side, side), device=world.device)
        _libraries = torch.empty(LEFT_FREE, dtype=torch.uint8, device=world.device)
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
