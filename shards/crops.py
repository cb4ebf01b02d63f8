"""Crop windows and flips: pure, vectorised functions of (seed, epoch, sample id) and the image's size.

The crop of the reference recipe is Resize(resize) and then RandomCrop(size) or CenterCrop(size), as
torchvision defines them. Here the window is chosen in the coordinates of the resized image, with
torchvision's rounding, and then carried back to the stored image, so that only the pixels needed
are decoded and one resize reads just the window. Where the stored image has the wanted shorter
side already, the two coordinates are the same integers and nothing is resized.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from shards.errors import UsageError
from shards.hashing import bits, integers
from shards.order import FLIP, LEFT, TOP

Crop = Literal["random", "center"]
CROPS: tuple[Crop, ...] = ("random", "center")


@dataclass(frozen=True)
class Windows:
    """What to read of each of n images. Coordinates are (row, column) in pixels."""

    anchor: npt.NDArray[np.int32]
    """(n, 2): the upper left corner of the region to decode, in the stored image."""
    shape: npt.NDArray[np.int32]
    """(n, 2): height and width of the region to decode."""
    start: npt.NDArray[np.float32]
    """(n, 2): the upper left corner of the window, in the decoded region; may lie between pixels."""
    end: npt.NDArray[np.float32]
    """(n, 2): the lower right corner of the window, in the decoded region."""
    mirror: npt.NDArray[np.int32]
    """(n,): 1 to flip left and right, else 0."""


def resized(height: npt.NDArray[np.int64], width: npt.NDArray[np.int64], resize: int) -> npt.NDArray[np.int64]:
    """(n, 2): height and width after torchvision's Resize(resize): the shorter side is `resize`, the longer cut off."""
    short, long = np.minimum(height, width), np.maximum(height, width)
    longer = (resize * long) // short
    tall = height > width
    return np.stack([np.where(tall, longer, resize), np.where(tall, resize, longer)], axis=-1)


def windows(
    crop: Crop,
    ids: npt.NDArray[np.int64],
    height: npt.NDArray[np.int32],
    width: npt.NDArray[np.int32],
    *,
    resize: int,
    size: int,
    flip: bool,
    seed: int,
    epoch: int,
) -> Windows:
    """The windows of the samples `ids` (n,), whose stored images are `height` by `width` (n,) pixels.

    `resize`: the shorter side before the crop; `size`: the output's side, at most `resize`.
    """
    if size > resize:
        raise UsageError(
            f"a crop of {size} pixels does not fit into a shorter side of {resize}: choose a larger resize"
        )
    stored = np.stack([height, width], axis=-1).astype(np.int64)
    target = resized(stored[:, 0], stored[:, 1], resize)
    room = target - size
    if crop == "random":
        corner = np.stack(
            [integers(ids, room[:, 0] + 1, seed, epoch, TOP), integers(ids, room[:, 1] + 1, seed, epoch, LEFT)], axis=-1
        )
    else:
        # torchvision takes Python's round(), which rounds halves to even, as rint does.
        corner = np.rint(room / 2.0).astype(np.int64)
    mirror = (bits(ids, seed, epoch, FLIP) >> np.uint64(63)).astype(np.int32) if flip else np.zeros(len(ids), np.int32)
    return _in_stored(corner, size, stored, target, mirror)


def _in_stored(
    corner: npt.NDArray[np.int64],
    size: int,
    stored: npt.NDArray[np.int64],
    target: npt.NDArray[np.int64],
    mirror: npt.NDArray[np.int32],
) -> Windows:
    """Carries windows from the resized image (`target`) to the stored one (`stored`).

    The decoded region is the window plus what the antialiasing filter reads around it: a triangle
    whose radius is one output pixel, but at least one stored pixel.
    """
    scale = stored / target
    start, end = corner * scale, (corner + size) * scale
    margin = np.where(scale == 1.0, 0.0, np.maximum(scale, 1.0) + 1.0)
    first = np.maximum(np.floor(start - margin), 0).astype(np.int64)
    last = np.minimum(np.ceil(end + margin), stored).astype(np.int64)
    return Windows(
        anchor=first.astype(np.int32),
        shape=(last - first).astype(np.int32),
        start=(start - first).astype(np.float32),
        end=(end - first).astype(np.float32),
        mirror=mirror,
    )
