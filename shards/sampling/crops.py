"""Crop windows and flips: pure, vectorised functions of (seed, epoch, sample id) and the image's size.

`random` and `center`: Resize(resize) and then RandomCrop(size) or CenterCrop(size), as torchvision defines them. Here
the crop window is chosen in the coordinates of the resized image, with torchvision's rounding, and then carried back to
the stored image: only the pixels needed are decoded, and one resize reads just the window. Where the stored image has
the wanted shorter side already, the two coordinates are the same integers and nothing is resized. `random` may have
padding, RandomCrop(size, padding): its window may then reach beyond the resized image, by so many pixels, which are
black. What is decoded and resized is the nearest window inside the image, and its pixels are moved afterwards.

`rrc`: torchvision's RandomResizedCrop(size), whose window is whole pixels of the stored image.

To add a crop: its name in `Crop`, and a function in FROM_RESIZED for its corner, or in FROM_STORED for its window.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from shards.common.errors import UsageError
from shards.sampling.hashing import bits, integers_of_each, keys
from shards.sampling.order import AREA, FLIP, LEFT, RATIO, TOP

Crop = Literal["random", "center", "rrc"]

# The filter of the resize, and how far it reads around an output pixel: in output pixels, but at least stored ones.
Interpolation = Literal["bilinear", "bicubic"]
REACH: dict[Interpolation, int] = {"bilinear": 1, "bicubic": 2}
# The type of its windows' corners. Rounded to float32, one in twenty of bicubic's weights, which have 15 bits, would be
# another than torchvision's of the whole image, and one pixel value in five hundred.
CORNERS: dict[Interpolation, npt.DTypeLike] = {"bilinear": np.float32, "bicubic": np.float64}
Corners = npt.NDArray[np.float32 | np.float64]

# The reference recipe's zoom: Resize(256) before a crop of 224.
RESIZE, SIZE = 256, 224

# RandomResizedCrop's defaults in torchvision: the share of the image's area, and width / height.
RRC_SCALE = (0.08, 1.0)
RRC_RATIO = (3 / 4, 4 / 3)
RRC_ATTEMPTS = 10
# Within which these may lie.
SCALES, RATIOS = (1e-6, 1.0), (1e-3, 1e3)


@dataclass(frozen=True)
class CropWindows:
    """What to cut out of each of n images. Coordinates are (row, column) in pixels."""

    anchor: npt.NDArray[np.int32]
    """(n, 2): the upper left corner of the region to decode, in the stored image."""
    shape: npt.NDArray[np.int32]
    """(n, 2): height and width of the region to decode."""
    start: Corners
    """(n, 2): the upper left corner of the crop window, in the decoded region; may lie between pixels."""
    end: Corners
    """(n, 2): the lower right corner of the crop window, in the decoded region."""
    mirror: npt.NDArray[np.int32]
    """(n,): 1 to flip left and right, else 0."""
    shift: npt.NDArray[np.int32]
    """(n, 2): rows and columns by which the window's pixels move down and right before the flip; what they leave is
    black. 0 without padding."""


def resized(height: npt.NDArray[np.int64], width: npt.NDArray[np.int64], resize: int) -> npt.NDArray[np.int64]:
    """(n, 2): height and width after torchvision's Resize(resize): the shorter side is `resize`, the longer cut off."""
    short, long = np.minimum(height, width), np.maximum(height, width)
    longer = (resize * long) // short
    tall = height > width
    return np.stack([np.where(tall, longer, resize), np.where(tall, resize, longer)], axis=-1)


def crop_windows(
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
    padding: int = 0,
    interpolation: Interpolation = "bilinear",
    scale: tuple[float, float] = RRC_SCALE,
    ratio: tuple[float, float] = RRC_RATIO,
) -> CropWindows:
    """The crop windows of the samples `ids` (n,), whose stored images are `height` by `width` (n,) pixels.

    `size`: the output's side; `resize`: the shorter side before the crop, at least `size` (`rrc` does not use it);
    `padding`: black pixels on each side of the resized image, for `random`; `interpolation`: the filter of the resize,
    which says how much around a window is decoded; `scale` and `ratio`: see `random_resized`, for `rrc`.
    """
    mirror = (bits(ids, seed, epoch, FLIP) >> np.uint64(63)).astype(np.int32) if flip else np.zeros(len(ids), np.int32)
    if crop in FROM_STORED:
        chosen = FROM_STORED[crop](ids, height, width, seed, epoch, scale=scale, ratio=ratio)
        return _whole(chosen, mirror, CORNERS[interpolation])
    if size > resize:
        raise UsageError(
            f"a crop of {size} pixels does not fit into a shorter side of {resize}: choose a larger resize"
        )
    stored = np.stack([height, width], axis=-1).astype(np.int64)
    target = resized(stored[:, 0], stored[:, 1], resize)
    room = target - size
    corner = FROM_RESIZED[crop](ids, room + 2 * padding, seed, epoch) - padding
    inside = np.minimum(np.maximum(corner, 0), room)
    return _in_stored(inside, size, stored, target, mirror, inside - corner, interpolation)


def _random_corner(
    ids: npt.NDArray[np.int64], room: npt.NDArray[np.int64], seed: int, epoch: int
) -> npt.NDArray[np.int64]:
    return integers_of_each(ids, room + 1, seed, [(epoch, TOP), (epoch, LEFT)])


def _central_corner(
    ids: npt.NDArray[np.int64], room: npt.NDArray[np.int64], seed: int, epoch: int
) -> npt.NDArray[np.int64]:
    # torchvision takes Python's round(), which rounds halves to even, as rint does.
    return np.rint(room / 2.0).astype(np.int64)


# Crops that are cut out of the resized image: the upper left corner (n, 2), where `room` (n, 2) is how far it can move.
FROM_RESIZED: dict[Crop, Callable[[npt.NDArray[np.int64], npt.NDArray[np.int64], int, int], npt.NDArray[np.int64]]] = {
    "random": _random_corner,
    "center": _central_corner,
}


def _in_stored(
    corner: npt.NDArray[np.int64],
    size: int,
    stored: npt.NDArray[np.int64],
    target: npt.NDArray[np.int64],
    mirror: npt.NDArray[np.int32],
    shift: npt.NDArray[np.int64],
    interpolation: Interpolation,
) -> CropWindows:
    """Carries windows from the resized image (`target`) to the stored one (`stored`).

    The decoded region is the window plus what the antialiasing filter reads around it: its radius is REACH output
    pixels, but at least as many stored pixels.
    """
    reach, corners = REACH[interpolation], CORNERS[interpolation]
    if np.array_equal(stored, target):
        # As below, in a fourth of the time.
        shape = np.full(corner.shape, size, np.int32)
        return CropWindows(
            anchor=corner.astype(np.int32),
            shape=shape,
            start=np.zeros(corner.shape, corners),
            end=shape.astype(corners),
            mirror=mirror,
            shift=shift.astype(np.int32),
        )
    scale = stored / target
    start, end = corner * scale, np.minimum((corner + size) * scale, stored)
    margin = np.where(scale == 1.0, 0.0, reach * np.maximum(scale, 1.0) + 1.0)
    first = np.maximum(np.floor(start - margin), 0).astype(np.int64)
    last = np.minimum(np.ceil(end + margin), stored).astype(np.int64)
    return CropWindows(
        anchor=first.astype(np.int32),
        shape=(last - first).astype(np.int32),
        start=(start - first).astype(corners),
        end=(end - first).astype(corners),
        mirror=mirror,
        shift=shift.astype(np.int32),
    )


def random_resized(
    ids: npt.NDArray[np.int64],
    height: npt.NDArray[np.int32],
    width: npt.NDArray[np.int32],
    seed: int,
    *stream: int,
    scale: npt.ArrayLike = RRC_SCALE,
    ratio: npt.ArrayLike = RRC_RATIO,
) -> npt.NDArray[np.int64]:
    """RandomResizedCrop's windows, (n, 4): top, left, height, width in pixels of the stored images.

    As torchvision: up to ten attempts to draw an area (`scale` of the image's) and a ratio (`ratio`, evenly in its
    logarithm) whose window fits into the image; if none fits, the largest centred window of an allowed ratio.

    `stream`: the epoch, and what else sets these numbers apart. `scale` and `ratio`: from and to, (2,) or (n, 2).
    """
    from shards.sampling.windows import draw_windows  # brings numba, for which a mistyped option need not wait

    scales, ratios = (
        np.ascontiguousarray(np.broadcast_to(np.asarray(each, np.float64), (len(ids), 2))) for each in (scale, ratio)
    )
    tall, wide = np.asarray(height, np.int64), np.asarray(width, np.int64)
    return draw_windows(ids, tall, wide, scales, ratios, np.log(ratios), *_window_keys(seed, stream))


@functools.lru_cache(64)  # all batches of an epoch ask for the same ones
def _window_keys(seed: int, stream: tuple[int, ...]) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """The keys of each attempt's area and ratio, (attempts, 2, 2), and of the corner's row and column, (2, 2)."""
    drawn = [(*stream, purpose, attempt) for attempt in range(RRC_ATTEMPTS) for purpose in (AREA, RATIO)]
    return keys(seed, drawn).reshape(-1, 2, 2), keys(seed, [(*stream, TOP), (*stream, LEFT)])


def _whole(window: npt.NDArray[np.int64], mirror: npt.NDArray[np.int32], corners: npt.DTypeLike) -> CropWindows:
    """Windows of whole pixels: they are the region to decode, and a resize sees nothing beside them."""
    shape = window[:, 2:].astype(np.int32)
    return CropWindows(
        anchor=window[:, :2].astype(np.int32),
        shape=shape,
        start=np.zeros(shape.shape, corners),
        end=shape.astype(corners),
        mirror=mirror,
        shift=np.zeros_like(shape),
    )


# Crops whose window is chosen in the stored image: (n, 4), top, left, height and width.
FROM_STORED: dict[Crop, Callable[..., npt.NDArray[np.int64]]] = {"rrc": random_resized}
CROPS = (*FROM_RESIZED, *FROM_STORED)


def crop_in_words(crop: Crop) -> str:
    """The name of a crop that an argument does not go with, and where it comes from: people share arguments."""
    default = {"random": ", the default with train=True", "center": ", the default with train=False"}
    return f"{crop!r}{default.get(crop, '')}"
