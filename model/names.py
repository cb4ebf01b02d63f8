"""The names of the networks, without torch: model/networks.py builds them."""

from collections.abc import Collection
from typing import Any

from shards.common.errors import UsageError

NAMES = ("cnn", "resnet18", "resnet34", "resnet50", "resnet101", "efficientnet_b0", "convnext_tiny")


def check_name(name: Any, known: Collection[str]) -> None:
    """Raises UsageError for what is not the name of a network."""
    if not isinstance(name, str) or name not in known:
        raise UsageError(f"unknown model {name!r}: choose one of {', '.join(known)}")
