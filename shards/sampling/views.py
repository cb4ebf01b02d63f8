"""Several views of each sample: window, flip and colour of each, as data.

What view v of a sample gets is a pure function of (seed, epoch, sample id, v), whatever other views there are. Its
window is RandomResizedCrop's. The image is read and decoded once: the region to decode is the smallest that holds the
windows of all views.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shards.common.arguments import checked_class, flag, interval, one_of, whole_number
from shards.common.errors import UsageError
from shards.sampling.colour import NO_CHANGE, Colour, draws
from shards.sampling.crops import (
    RATIOS,
    REACH,
    RRC_RATIO,
    RRC_SCALE,
    SCALES,
    SIZE,
    CropWindows,
    Interpolation,
    random_resized,
)
from shards.sampling.hashing import bits
from shards.sampling.order import FLIP

# A part of the stream in shards/sampling/hashing.py: sets the numbers of views apart from those of single images.
VIEW = 0x5657
# Views of a sample are numbered; what is drawn is drawn for id * MOST_VIEWS + view.
MOST_VIEWS = 256
# As the index of a split allows.
MOST_SIDE = 65_500


@checked_class
@dataclass(frozen=True)
class View:
    """A view of each sample, or `n` of them, drawn apart: RandomResizedCrop(size, scale, ratio), flip and colour."""

    size: int = SIZE
    """Side of the square output, in pixels."""
    scale: tuple[float, float] = RRC_SCALE
    """The window's share of the image's area."""
    ratio: tuple[float, float] = RRC_RATIO
    """The window's width by its height."""
    n: int = 1
    flip: bool = True
    """Mirror half of them."""
    interpolation: Interpolation = "bilinear"
    """The filter of the resize, antialiased: "bilinear" or "bicubic"."""
    colour: Colour = NO_CHANGE

    def __post_init__(self) -> None:
        whole_number("size", self.size, 1, MOST_SIDE)
        interval("scale", self.scale, *SCALES)
        interval("ratio", self.ratio, *RATIOS)
        whole_number("n", self.n, 1, MOST_VIEWS)
        flag("flip", self.flip)
        one_of("interpolation", self.interpolation, list(REACH))
        if not isinstance(self.colour, Colour):
            raise UsageError(f"colour must be a Colour, not {self.colour!r}")


@dataclass(frozen=True)
class PlannedViews:
    """The views of n samples. Coordinates are (row, column) in pixels of the decoded region."""

    views: tuple[View, ...]
    """One for each single view."""
    anchor: npt.NDArray[np.int32]
    """(n, views, 2): the upper left corner of each window."""
    shape: npt.NDArray[np.int32]
    """(n, views, 2): height and width of each window."""
    mirror: npt.NDArray[np.int32]
    """(n, views): 1 to flip left and right, else 0."""
    operation: npt.NDArray[np.int32]
    """(n, views, stages): what changes the colours, in order, as `shards.sampling.colour.draws` gives it."""
    strength: npt.NDArray[np.float32]
    """(n, views, stages)"""


def single(views: Sequence[View]) -> tuple[View, ...]:
    """The views one by one. Raises UsageError for anything but views, and for none or too many."""
    if isinstance(views, View) or not isinstance(views, Sequence) or not all(isinstance(each, View) for each in views):
        raise UsageError("views must be a list of View, or the name of a preset")
    every = tuple(dataclasses.replace(each, n=1) for each in views for _ in range(each.n))
    if not 1 <= len(every) <= MOST_VIEWS:
        raise UsageError(f"views must be 1 to {MOST_VIEWS} in all, not {len(every)}")
    return every


def plan_views(
    views: tuple[View, ...],
    ids: npt.NDArray[np.int64],
    height: npt.NDArray[np.int32],
    width: npt.NDArray[np.int32],
    *,
    seed: int,
    epoch: int,
) -> tuple[CropWindows, PlannedViews]:
    """The single `views` of the samples `ids` (n,), whose stored images are `height` by `width` (n,) pixels.

    Returns the regions to decode, and the views as parts of them.
    """
    numbers = ids[:, None] * MOST_VIEWS + np.arange(len(views))
    stream = (epoch, VIEW)
    windows = random_resized(
        numbers.ravel(),
        np.repeat(height, len(views)),
        np.repeat(width, len(views)),
        seed,
        *stream,
        scale=np.tile([view.scale for view in views], (len(ids), 1)),
        ratio=np.tile([view.ratio for view in views], (len(ids), 1)),
    ).reshape(len(ids), len(views), 4)
    corner, shape = windows[..., :2], windows[..., 2:]
    first, last = corner.min(axis=1), (corner + shape).max(axis=1)
    flips = np.array([view.flip for view in views])
    mirror = (bits(numbers, seed, *stream, FLIP) >> np.uint64(63)).astype(np.int32) * flips
    operation, strength = draws([view.colour for view in views], numbers, seed, *stream)
    extent = (last - first).astype(np.int32)
    region = CropWindows(
        anchor=first.astype(np.int32),
        shape=extent,
        start=np.zeros(extent.shape, np.float32),
        end=extent.astype(np.float32),
        mirror=np.zeros(len(ids), np.int32),
        shift=np.zeros_like(extent),
    )
    anchor = (corner - first[:, None]).astype(np.int32)
    return region, PlannedViews(views, anchor, shape.astype(np.int32), mirror.astype(np.int32), operation, strength)
