"""The names of the networks, without torch: model/networks.py builds them."""

import difflib
import importlib.util
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from shards.common.errors import MissingDependency, UsageError

NAMES = ("cnn", "resnet18", "resnet34", "resnet50", "resnet101", "efficientnet_b0", "convnext_tiny")
# What the names of timm's networks begin with here: timm:vit_small_patch16_224.augreg_in21k_ft_in1k.
TIMM = "timm:"
# How timm's sources register a network.
_REGISTERED = re.compile(r"^@register_model\n(?:@.*\n)*def (\w+)\(", re.MULTILINE)


def check_name(name: Any, known: Collection[str]) -> None:
    """Raises UsageError for what is not the name of a network, and MissingDependency for one of timm without timm.

    Whether timm knows the name is seen when the network is built: to ask timm takes torch. `check_early` reads it.
    """
    if isinstance(name, str) and name.startswith(TIMM):
        require_timm(name)
    elif not isinstance(name, str) or name not in known:
        raise unknown(name, known, f"{', '.join(known)} or {TIMM}NAME")


def check_early(name: Any) -> None:
    """As `check_name`, of all names, and for one that timm does not have: from timm's sources, so without torch."""
    check_name(name, NAMES)
    if name.startswith(TIMM):
        known = _registered()
        if known:
            check_timm(name, known)


def check_timm(name: str, known: Collection[str]) -> None:
    """Raises UsageError for a network that is none of the `known` ones of timm; a tag of its weights may follow."""
    if name.removeprefix(TIMM).partition(".")[0] not in known:
        every = f"the {len(known):,} that timm.list_models() gives"
        raise unknown(name, [TIMM + each for each in sorted(known)], every)


def _registered() -> set[str]:
    """The networks in the sources of the installed timm; empty where they are written in another way."""
    spec = importlib.util.find_spec("timm")
    places = [] if spec is None else spec.submodule_search_locations or []
    files = [path for place in places for path in Path(place, "models").rglob("*.py")]
    return {name for path in files for name in _REGISTERED.findall(path.read_text(encoding="utf-8"))}


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
