"""Sides of images that fit each other: the output, the shorter side before the crop, what is stored. Without DALI."""

import math
from typing import Any

import numpy as np

from shards.common.arguments import number, whole_number
from shards.common.errors import UsageError
from shards.common.terminal import advice
from shards.dataset.split import Split
from shards.format.index import MAX_JPEG_SIDE
from shards.sampling.crops import FROM_RESIZED, RESIZE, SIZE, Crop, crop_in_words

# Below this share of an image's side a crop shows nothing that anybody would evaluate on.
LEAST_CROP_PCT = 0.01


def pixels(name: str, value: Any) -> int:
    """A side of images, as an int. Raises UsageError for what cannot be one."""
    return whole_number(name, value, 1, MAX_JPEG_SIDE)


def squares_of(split: Split, size: int) -> bool:
    """Whether every image is stored at size x size pixels, so that a random crop of that size cuts nothing off."""
    index = split.index
    return split.manifest.settings.short_side == size and bool(((index.height == size) & (index.width == size)).all())


def fitting_size(split: Split) -> int:
    """The usual side of the output or, where most images are smaller, their median shorter side."""
    return min(SIZE, split.manifest.settings.short_side or _median_side(split))


def _median_side(split: Split) -> int:
    return int(np.median(np.minimum(split.index.width, split.index.height))) if len(split) else SIZE


def shorter_side(
    split: Split,
    size: int,
    resize: int | None,
    crop: Crop,
    option: str = "--size",
    pad: str | None = None,
    larger: str = "",
) -> int:
    """The shorter side before the crop. Raises UsageError where the crop is cut out of it and does not fit.

    option: of a command, by which its user gave `size`; pad: the option that gives images a border, with its command,
    by default that of `train`; larger: the option for `resize`, if the command has one.
    """
    if size < 1:
        raise UsageError(f"{advice('size', option)} must be 1 or more, not {size}")
    stored = split.manifest.settings.short_side
    chosen = round(size * RESIZE / SIZE) if resize is None else resize
    if resize is None and stored is not None:
        chosen = min(chosen, stored)
    least = chosen
    if resize is None and stored is None and len(split):
        # Of images in their original sizes a few are smaller than the crop, as in ImageNet; most must not be.
        least = min(chosen, _median_side(split))
    if crop in FROM_RESIZED and size > least:
        median = "median " if least < chosen else ""
        border = ""
        if crop == "random" and squares_of(split, least):
            given = advice(f"padding={least // 8}", f"`{pad or 'python -m train --pad'} {least // 8}`")
            border = f", with {given} for {least}, or nothing is left to crop"
        words = advice("a larger resize", larger and f"a larger {larger}")
        raise UsageError(
            f"a crop of {size} pixels does not fit into images whose {median}shorter side is {least}: "
            f"choose {advice(f'a size of at most {least}', f'{option} {least} or less')}{border}"
            f"{f', or {words}' if words and (least < chosen or resize is not None) else ''}"
        )
    return chosen


def side_before_crop(split: Split, size: int, resize: int | None, crop: Crop, crop_pct: float | None) -> int:
    """The shorter side before the crop, as `shorter_side` has it or, with `crop_pct`, as timm: size / crop_pct.

    Raises UsageError for `crop_pct` with another crop or beside `resize`, and where smaller images are stored.
    """
    if crop_pct is None:
        return shorter_side(split, size, resize, crop)
    if resize is not None:
        raise UsageError("resize and crop_pct both say the shorter side before the crop: give one")
    if crop != "center":
        raise UsageError(f"crop_pct is for crop='center', not {crop_in_words(crop)}")
    share = number("crop_pct", crop_pct, LEAST_CROP_PCT, 1)
    chosen, stored = pixels("size / crop_pct", math.floor(size / share)), split.manifest.settings.short_side
    if stored is not None and stored < chosen:
        raise UsageError(f"crop_pct={share:g} takes {too_small(split, chosen)}")
    return chosen


def too_small(split: Split, resize: int) -> str:
    """Of a split that stores smaller images than `resize`: that, and what makes larger ones, as a part of a message."""
    return (
        f"images whose shorter side is {resize} pixels, and {split.place} stores {split.manifest.settings.short_side}: "
        f"`python -m preprocess SOURCE OUT --short-side {resize}` makes larger ones"
    )
