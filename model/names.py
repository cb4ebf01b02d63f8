"""The names of the networks, without torch: model/networks.py builds them."""

import difflib
import importlib.util
from collections.abc import Collection
from pathlib import Path
from typing import Any

from shards.common.errors import MissingDependency, UsageError

NAMES = ("cnn", "resnet18", "resnet34", "resnet50", "resnet101", "efficientnet_b0", "convnext_tiny")
# What the names of timm's networks begin with here: timm:vit_small_patch16_224.augreg_in21k_ft_in1k.
TIMM = "timm:"


def check_name(name: Any, known: Collection[str]) -> None:
    """Raises UsageError for what is not the name of a network, and MissingDependency for one of timm without timm.

    Whether timm knows the name is seen when the network is built: to ask timm takes torch.
    """
    if isinstance(name, str) and name.startswith(TIMM):
        require_timm(name)
    elif not isinstance(name, str) or name not in known:
        raise unknown(name, known, f"{', '.join(known)} or {TIMM}NAME")


def is_model(path: Path) -> bool:
    """Whether what stands for a file of weights is the name of a network, and no file."""
    return not path.exists() and (str(path) in NAMES or str(path).startswith(TIMM))


def require_timm(name: str) -> None:
    """Raises MissingDependency where `name` is one of timm's and timm is not installed."""
    if name.startswith(TIMM) and importlib.util.find_spec("timm") is None:
        raise MissingDependency(f"{name} needs timm, which is not installed: pip install 'shardfeed[timm]'")


def unknown(name: Any, known: Collection[str], choice: str) -> UsageError:
    """The error for a name that is none of the `known` ones, with the one that it may be a slip of."""
    close = difflib.get_close_matches(str(name), known, n=1)
    meant = f" (did you mean {close[0]}?)" if close else ""
    return UsageError(f"unknown model {name!r}{meant}: choose one of {choice}")
