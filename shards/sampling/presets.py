"""The views of published methods of self-supervised learning, as their own repositories have them.

Loader(split, views="dino", ...)             # the same as views=dino()
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

from shards.common.arguments import one_of
from shards.common.errors import UsageError
from shards.sampling.colour import Colour
from shards.sampling.views import View, single

# Brightness, contrast, saturation, hue; SimCLR's jitter, and BYOL's.
STRONG = Colour(0.8, 0.8, 0.8, 0.2, jitter=0.8, gray=0.2)
SOFT = Colour(0.4, 0.4, 0.2, 0.1, jitter=0.8, gray=0.2)


def simclr() -> list[View]:
    """SimCLR (Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", 2020)."""
    colour = replace(STRONG, blur=0.5)
    return [View(224, scale=(0.08, 1.0), n=2, interpolation="bicubic", colour=colour)]


def mocov3() -> list[View]:
    """MoCo v3 (Chen, Xie, He, 2021), with the asymmetric views of BYOL (Grill et al., 2020)."""
    return [
        View(224, scale=(0.08, 1.0), colour=replace(SOFT, blur=1.0)),
        View(224, scale=(0.08, 1.0), colour=replace(SOFT, blur=0.1, solarize=0.2)),
    ]


def swav() -> list[View]:
    """SwAV (Caron et al., "Unsupervised Learning of Visual Features by Contrasting Cluster Assignments", 2020)."""
    colour = replace(STRONG, blur=0.5)
    return [View(224, scale=(0.14, 1.0), n=2, colour=colour), View(96, scale=(0.05, 0.14), n=6, colour=colour)]


def dino() -> list[View]:
    """DINO (Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", 2021)."""
    large, small = (0.4, 1.0), (0.05, 0.4)
    return [
        View(224, scale=large, interpolation="bicubic", colour=replace(SOFT, blur=1.0)),
        View(224, scale=large, interpolation="bicubic", colour=replace(SOFT, blur=0.1, solarize=0.2)),
        View(96, scale=small, n=8, interpolation="bicubic", colour=replace(SOFT, blur=0.5)),
    ]


def mae() -> list[View]:
    """MAE (He et al., "Masked Autoencoders Are Scalable Vision Learners", 2021): one view, no change of colour."""
    return [View(224, scale=(0.2, 1.0), interpolation="bicubic")]


Method = Literal["simclr", "mocov3", "dino", "swav", "mae"]
PRESETS: dict[Method, Callable[[], list[View]]] = {
    "simclr": simclr,
    "mocov3": mocov3,
    "dino": dino,
    "swav": swav,
    "mae": mae,
}


def choose_views(views: Sequence[View] | Method | None) -> tuple[View, ...]:
    """The single views that a loader is asked for; () for none. Raises UsageError for anything but views."""
    if views is None:
        return ()
    return single(PRESETS[one_of("views", views, list(PRESETS))]() if isinstance(views, str) else views)


def refuse_beside_views(**given: bool) -> None:
    """Raises UsageError for arguments of a loader that were given beside views, which have their own."""
    names = [name for name, is_given in given.items() if is_given]
    if names:
        raise UsageError(f"each view has its own crop, size and colour: leave out {', '.join(names)}")
