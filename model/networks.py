"""The networks by name, and how one is built: our own, torchvision's, and as `timm:NAME` any of timm's."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torchvision.models import convnext_tiny, efficientnet_b0, resnet18, resnet34, resnet50, resnet101

from model.blur import blur_strided
from model.cnn import Cnn
from model.names import TIMM, check_name, check_timm, unknown
from model.recompute import recompute_blocks
from shards.common.arguments import whole_number
from shards.common.errors import UsageError
from shards.common.terminal import advice

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
    size: int | None = None,
) -> nn.Module:
    """A new network from images (B, 3, H, W) to logits (B, num_classes); nothing is downloaded.

    name: one of `MODELS`, or "timm:" and a name of timm's, with or without the tag of its weights.
    Its initial weights come from torch's global random generator: call `torch.manual_seed` first.
    blur_pool: anti-aliased strided convolutions, see model/blur.py.
    drop_path: the rate of stochastic depth in the last block; None: the network's own.
    checkpoint: gradient checkpointing, less memory for more time, see model/recompute.py; of timm's networks, timm's
    own, which counts a step twice in the running statistics of batch norm.

    size: side of the images, for networks of timm that are made for one size; None: the size of their weights.

    Raises UsageError for an unknown name, fewer than one class, or blur_pool where no convolution has a stride, and
    MissingDependency for a network of timm's where timm is not installed.
    """
    check_name(name, MODELS)
    num_classes = whole_number("num_classes", num_classes, 1)
    if name.startswith(TIMM):
        network = _of_timm(name, num_classes, drop_path, size)
    elif drop_path is None:
        network = MODELS[name](num_classes)
    elif name in DROP_PATH:
        network = DROP_PATH[name](num_classes=num_classes, stochastic_depth_prob=drop_path)
    else:
        raise UsageError(f"{name} has no drop path: leave it out, or choose one of {', '.join(DROP_PATH)}")
    if blur_pool and not blur_strided(network):
        blur = advice("blur_pool", "--blur-pool")
        raise UsageError(f"{name} has no convolution with a stride to put a blur before: leave {blur} out")
    if checkpoint and name.startswith(TIMM):
        try:
            network.set_grad_checkpointing(True)  # type: ignore[operator]
        except (AssertionError, AttributeError):  # as timm's networks without it answer
            raise UsageError(f"{name} has no gradient checkpointing: leave it out") from None
    elif checkpoint:
        recompute_blocks(network)
    return network


def _of_timm(name: str, num_classes: int, drop_path: float | None, size: int | None) -> nn.Module:
    timm, more = timm_of(name), {} if drop_path is None else {"drop_path_rate": drop_path}
    published = timm.get_pretrained_cfg(name.removeprefix(TIMM))
    own = published.input_size[1] if published is not None and published.fixed_input_size else None
    if own is not None and size not in (None, own):
        more["img_size"] = size
    try:
        network: nn.Module = timm.create_model(name.removeprefix(TIMM), num_classes=num_classes, **more)
    except TypeError:
        if "img_size" in more:
            raise UsageError(f"{name} takes images of {own} pixels only: give no other size") from None
        if drop_path is None:
            raise
        raise UsageError(f"{name} has no drop path: leave it out") from None
    return network


def timm_of(name: str) -> Any:
    """The module timm. Raises UsageError where it does not know the network `name`, or a tag in it."""
    import timm

    inner = name.removeprefix(TIMM)
    check_timm(name, timm.list_models())
    tagged = [TIMM + each for each in timm.list_models(f"{inner.partition('.')[0]}.*", pretrained=True)]
    if "." in inner and name not in tagged:
        raise unknown(name, tagged, ", ".join(tagged[:5]) + (" ..." if len(tagged) > 5 else ""))
    return timm


def fixed_side(network: nn.Module) -> int | None:
    """The side, in pixels, of the images of a network's published weights where it is made for one size; or None."""
    published = getattr(network, "pretrained_cfg", None) or {}
    return int(published["input_size"][1]) if published.get("fixed_input_size") else None


def head_of(network: nn.Module) -> tuple[str, ...]:
    """The names of the layers that give the logits: what timm calls the classifier, otherwise the last linear layer."""
    named = (getattr(network, "pretrained_cfg", None) or {}).get("classifier")
    if named:
        return (named,) if isinstance(named, str) else tuple(named)
    linear = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    return tuple(linear[-1:])


def in_head(network: nn.Module) -> Callable[[str], bool]:
    """Whether a name, of a layer or of a tensor in the state dict, belongs to the head."""
    heads = head_of(network)
    return lambda name: any(name == head or name.startswith(f"{head}.") for head in heads)


def freeze_body(network: nn.Module) -> None:
    """From here on only the head is trained; see `train_mode`."""
    of_head = in_head(network)
    for name, parameter in network.named_parameters():
        parameter.requires_grad = of_head(name)


def train_mode(network: nn.Module, wrapped: nn.Module, *, frozen: bool) -> None:
    """Training mode; of a frozen body evaluation mode, so its statistics stay and it drops nothing.

    wrapped: the network as several ranks train it. A body that computes as in evaluation gives the same features of an
    image in every epoch, which is what linear probes measure (MoCo, DINO, MAE) and what Keras does for a frozen layer.
    """
    wrapped.train()
    if frozen:
        of_head = in_head(network)
        for name, module in network.named_modules():
            if not of_head(name):
                module.training = False


@torch.no_grad()
def copy_into(network: nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Copies tensors of the network's own names and shapes, whatever their type and device."""
    own = network.state_dict()
    for key, value in state.items():
        own[key].copy_(value)
