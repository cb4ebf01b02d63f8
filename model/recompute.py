"""Gradient checkpointing: activations inside a block are computed again in the backward pass instead of being kept.

Costs about one more forward pass a step, and saves most of the activations' memory (Chen et al., arXiv:1604.06174).
Weights, gradients, running statistics and the keys of the state dict are those of the plain network.
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

# What is computed again as a whole: small enough to fit, large enough that little is kept between them.
BLOCKS = (BasicBlock, Bottleneck, MBConv, CNBlock)


def recompute_blocks(network: nn.Module) -> int:
    """Makes every block of `network` forget its activations until the backward pass, in place; returns their number."""
    blocks = [module for module in network.modules() if isinstance(module, BLOCKS)]
    if isinstance(network, Cnn):
        blocks = list(network.stages.children())
    for block in blocks:
        # An attribute of the instance, not a wrapper: a wrapper would rename every weight.
        setattr(block, "forward", partial(_forgetful, block, block.forward))  # noqa: B010 - mypy refuses a method's place
    return len(blocks)


def _forgetful(block: nn.Module, forward: Callable[[Tensor], Tensor], features: Tensor) -> Tensor:
    if not torch.is_grad_enabled():
        return forward(features)
    if torch.compiler.is_compiling():
        # The compiler recomputes pure operations only, so statistics move once; it takes no contexts of ours.
        compiled: Tensor = checkpoint(forward, features, use_reentrant=False)
        return compiled
    kept: Tensor = checkpoint(forward, features, use_reentrant=False, context_fn=partial(_contexts, block))
    return kept


def _contexts(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """What the first computation runs in, and what the second does."""
    return nullcontext(), _statistics_kept(block)


@contextmanager
def _statistics_kept(block: nn.Module) -> Iterator[None]:
    """Batch norms inside `block` compute as ever, but it is copies of their running statistics that move."""
    norms = [module for module in block.modules() if isinstance(module, _BatchNorm)]
    kept = [dict(norm._buffers) for norm in norms]
    for norm, buffers in zip(norms, kept, strict=True):
        norm._buffers.update({name: None if own is None else own.clone() for name, own in buffers.items()})
    try:
        yield
    finally:
        for norm, buffers in zip(norms, kept, strict=True):
            norm._buffers.update(buffers)
