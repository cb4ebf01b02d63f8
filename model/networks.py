"""The networks by name, and how one is built."""

from collections.abc import Callable

from torch import nn
from torchvision.models import convnext_tiny, efficientnet_b0, resnet18, resnet34, resnet50, resnet101

from model.blur import blur_strided
from model.cnn import Cnn
from model.names import check_name
from model.recompute import recompute_blocks
from shards.common.arguments import whole_number
from shards.common.errors import UsageError

MODELS: dict[str, Callable[[int], nn.Module]] = {
    "cnn": Cnn,
    "resnet18": lambda num_classes: resnet18(num_classes=num_classes),
    "resnet34": lambda num_classes: resnet34(num_classes=num_classes),
    "resnet50": lambda num_classes: resnet50(num_classes=num_classes),
    "resnet101": lambda num_classes: resnet101(num_classes=num_classes),
    "efficientnet_b0": lambda num_classes: efficientnet_b0(num_classes=num_classes),
    "convnext_tiny": lambda num_classes: convnext_tiny(num_classes=num_classes),
}


# The networks with stochastic depth; the others have no argument for it.
DROP_PATH: dict[str, Callable[..., nn.Module]] = {"efficientnet_b0": efficientnet_b0, "convnext_tiny": convnext_tiny}


def build_model(
    name: str,
    num_classes: int,
    *,
    blur_pool: bool = False,
    drop_path: float | None = None,
    checkpoint: bool = False,
) -> nn.Module:
    """A new network from images (B, 3, H, W) to logits (B, num_classes); nothing is downloaded.

    Its initial weights come from torch's global random generator: call `torch.manual_seed` first.
    blur_pool: anti-aliased strided convolutions, see model/blur.py.
    drop_path: the rate of stochastic depth in the last block; None: the network's own.
    checkpoint: gradient checkpointing, less memory for more time, see model/recompute.py.

    Raises UsageError for an unknown name, fewer than one class, or blur_pool where no convolution has a stride.
    """
    check_name(name, MODELS)
    num_classes = whole_number("num_classes", num_classes, 1)
    if drop_path is None:
        network = MODELS[name](num_classes)
    elif name in DROP_PATH:
        network = DROP_PATH[name](num_classes=num_classes, stochastic_depth_prob=drop_path)
    else:
        raise UsageError(f"{name} has no drop path: leave it out, or choose one of {', '.join(DROP_PATH)}")
    if blur_pool and not blur_strided(network):
        raise UsageError(f"{name} has no convolution with a stride to put a blur before: leave blur_pool off")
    if checkpoint:
        recompute_blocks(network)
    return network
