"""Gradient checkpointing: the backward pass computes a block's activations again; they are not kept in memory.

It costs about one more forward pass a step and saves most of the memory of activations (Chen et al., arXiv:1604.06174).
Weights, gradients, running statistics and the keys of the state dict are the same as without it.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint
from torchvision.models.convnext import CNBlock
from torchvision.models.efficientnet import MBConv
from torchvision.models.resnet import BasicBlock, Bottleneck

from model.cnn import Cnn

# Each of these is computed again as a whole: small enough to fit into memory, large enough that little is kept between.
BLOCKS = (BasicBlock, Bottleneck, MBConv, CNBlock)


def recompute_blocks(network: nn.Module) -> int:
    """Makes every block of `network` drop its activations until the backward pass, in place; returns their number."""
    blocks = [module for module in network.modules() if isinstance(module, BLOCKS)]
    if isinstance(network, Cnn):
        blocks = list(network.stages.children())
    for block in blocks:
        # Replaces the method on the instance: a wrapper module would rename every weight.
        setattr(block, "forward", partial(_forgetful, block, block.forward))  # noqa: B010 - mypy rejects an assignment to a method
    return len(blocks)


def _forgetful(block: nn.Module, forward: Callable[[Tensor], Tensor], features: Tensor) -> Tensor:
    if not torch.is_grad_enabled():
        return forward(features)
    if torch.compiler.is_compiling():
        # The compiler recomputes pure operations only, so statistics are updated once; it accepts no context_fn.
        compiled: Tensor = checkpoint(forward, features, use_reentrant=False)
        return compiled
    kept: Tensor = checkpoint(forward, features, use_reentrant=False, context_fn=partial(_contexts, block))
    return kept


def _contexts(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """The contexts of the first computation and of the second."""
    return nullcontext(), _statistics_kept(block)


@contextmanager
def _statistics_kept(block: nn.Module) -> Iterator[None]:
    """Batch norms inside `block` update copies of their running statistics; the statistics themselves stay."""
    norms = [module for module in block.modules() if isinstance(module, _BatchNorm)]
    kept = [dict(norm._buffers) for norm in norms]
    for norm, buffers in zip(norms, kept, strict=True):
        norm._buffers.update({name: None if own is None else own.clone() for name, own in buffers.items()})
    try:
        yield
    finally:
        for norm, buffers in zip(norms, kept, strict=True):
            norm._buffers.update(buffers)
