"""Sides of images that fit each other: the output, the shorter side before the crop, what is stored. Without DALI."""

from typing import Any

import numpy as np

from shards.common.arguments import whole_number
from shards.common.errors import UsageError
from shards.common.terminal import advice
from shards.dataset import Split
from shards.format.index import MAX_JPEG_SIDE
from shards.sampling.crops import FROM_RESIZED, RESIZE, SIZE, Crop


def pixels(name: str, value: Any) -> int:
    """A side of images, as an int. Raises UsageError for what cannot be one."""
    return whole_number(name, value, 1, MAX_JPEG_SIDE)


def squares_of(split: Split, size: int) -> bool:
    """Whether every image is stored at size x size pixels, so that a random crop of that size cuts nothing off."""
    index = split.index
    return split.manifest.settings.short_side == size and bool(((index.height == size) & (index.width == size)).all())


def shorter_side(split: Split, size: int, resize: int | None, crop: Crop, option: str = "--size") -> int:
    """The shorter side before the crop. Raises UsageError where the crop is cut out of it and does not fit.

    option: of a command, by which its user gave `size`.
    """
    if size < 1:
        raise UsageError(f"size must be at least 1 pixel, not {size}")
    stored = split.manifest.settings.short_side
    chosen = round(size * RESIZE / SIZE) if resize is None else resize
    if resize is None and stored is not None:
        chosen = min(chosen, stored)
    least = chosen
    if resize is None and stored is None and len(split):
        # Of images in their original sizes a few are smaller than the crop, as in ImageNet; most must not be.
        least = min(chosen, int(np.median(np.minimum(split.index.width, split.index.height))))
    if crop in FROM_RESIZED and size > least:
        median = "median " if least < chosen else ""
        border = ""
        if crop == "random" and squares_of(split, least):
            pad = advice(f"padding={least // 8}", f"`python -m train --pad {least // 8}`")
            border = f", with {pad} for {least}, or nothing is left to crop"
        raise UsageError(
            f"a crop of {size} pixels does not fit into images whose {median}shorter side is {least}: "
            f"choose {advice(f'a size of at most {least}', f'{option} {least} or less')}{border}"
            f"{'' if least == chosen and resize is None else ', or a larger resize'}"
        )
    return chosen
