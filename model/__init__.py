"""The networks that can be trained, by name: `build_model("cnn", num_classes=1000)`."""

from collections.abc import Callable

from torch import nn
from torchvision.models import efficientnet_b0, resnet18, resnet50

from model.cnn import Cnn

__all__ = ["MODELS", "Cnn", "build_model"]

MODELS: dict[str, Callable[[int], nn.Module]] = {
    "cnn": Cnn,
    "resnet18": lambda num_classes: resnet18(weights=None, num_classes=num_classes),
    "resnet50": lambda num_classes: resnet50(weights=None, num_classes=num_classes),
    "efficientnet_b0": lambda num_classes: efficientnet_b0(weights=None, num_classes=num_classes),
}


def build_model(name: str, num_classes: int) -> nn.Module:
    """A freshly initialised network from images (B, 3, H, W) to logits (B, num_classes); nothing is downloaded.

    Its weights come from torch's global random generator: call `torch.manual_seed` first.
    Raises ValueError for an unknown name or fewer than one class.
    """
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}: choose one of {', '.join(MODELS)}")
    if num_classes < 1:
        raise ValueError(f"a model needs at least 1 class, not {num_classes}")
    return MODELS[name](num_classes)
