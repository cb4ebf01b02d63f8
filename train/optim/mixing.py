"""Mixup, CutMix and random erasing, on the device where the network computes.

What is drawn is a pure function of (seed, optimizer step), and for erasing of an image's place in the global batch:
a run that is resumed draws what it would have drawn, without any generator's state, and ranks share the draw.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from shards.sampling import hashing
from train.options import Mixing

# Names of the independent sequences of numbers.
_WHICH, _SHARE_A, _SHARE_B, _BOX, _ERASE = 101, 102, 103, 104, 105
# Candidates for one draw from a beta distribution, of which one in six is taken where alpha is 2.
_CANDIDATES = 256
# Random erasing as published: the part of the image's area, the ratio of height to width, and how often one tries.
_AREA, _RATIO, _ATTEMPTS = (0.02, 1 / 3), (0.3, 3.3), 10


@dataclass(frozen=True)
class Mixed:
    """Images (B, 3, H, W); the labels (B,) that each shows with weight `share`, and the others that it shows too."""

    images: Tensor
    labels: Tensor
    others: Tensor
    share: float

    def loss(self, logits: Tensor, label_smoothing: float) -> Tensor:
        """Sum of the cross-entropies (scalar), which is linear in the labels' weights."""
        own = F.cross_entropy(logits, self.labels, reduction="sum", label_smoothing=label_smoothing)
        if self.share == 1.0:
            return own
        other = F.cross_entropy(logits, self.others, reduction="sum", label_smoothing=label_smoothing)
        return self.share * own + (1 - self.share) * other


def mix(images: Tensor, labels: Tensor, mixing: Mixing, seed: int, step: int) -> Mixed:
    """Each image mixed with its neighbour in the batch, by mixup or CutMix, as `mixing` says; new tensors.

    `step`: the optimizer step, all of whose images are mixed in the same proportion.
    """
    neighbour = labels.roll(1)
    both = mixing.mixup > 0 and mixing.cutmix > 0
    cut = mixing.cutmix > 0 and (not both or float(hashing.uniform(step, seed, _WHICH)) < 0.5)
    alpha = mixing.cutmix if cut else mixing.mixup
    if not alpha:
        return Mixed(images, labels, labels, 1.0)
    share = beta(alpha, seed, step)
    if not cut:
        return Mixed(torch.lerp(images.roll(1, 0), images, share), labels, neighbour, share)
    top, left, height, width = _cut_box(images.shape[2], images.shape[3], share, seed, step)
    mixed = images.clone()
    window = (..., slice(top, top + height), slice(left, left + width))
    mixed[window] = images.roll(1, 0)[window]
    return Mixed(mixed, labels, neighbour, 1 - height * width / (images.shape[2] * images.shape[3]))


def erase(images: Tensor, probability: float, seed: int, step: int, places: npt.NDArray[np.int64]) -> Tensor:
    """A new tensor in which a rectangle of some images is zero, that is, of the data set's mean colour.

    places: (B,), of the images in the global batch of optimizer step `step`.
    """
    boxes = erase_boxes(places, images.shape[2], images.shape[3], probability, seed, step)
    top, left, height, width = torch.from_numpy(boxes).to(images.device, non_blocking=True).unsqueeze(-1).unbind(1)
    rows = torch.arange(images.shape[2], device=images.device)
    columns = torch.arange(images.shape[3], device=images.device)
    inside = ((rows >= top) & (rows < top + height)).unsqueeze(2) & (
        (columns >= left) & (columns < left + width)
    ).unsqueeze(1)
    return images.masked_fill(inside.unsqueeze(1), 0.0)


def erase_boxes(
    places: npt.NDArray[np.int64], rows: int, columns: int, probability: float, seed: int, step: int
) -> npt.NDArray[np.int64]:
    """(B, 4): top, left, height, width of each image's rectangle; height and width 0 where nothing is erased."""

    def draw(number: int, attempts: int) -> npt.NDArray[np.float64]:
        return np.stack([hashing.uniform(places, seed, _ERASE, step, number, i) for i in range(attempts)], axis=1)

    area = rows * columns * (_AREA[0] + (_AREA[1] - _AREA[0]) * draw(0, _ATTEMPTS))
    ratio = np.exp(np.log(_RATIO[0]) + (np.log(_RATIO[1]) - np.log(_RATIO[0])) * draw(1, _ATTEMPTS))
    heights, widths = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
    fits = (heights < rows) & (widths < columns)
    first = np.argmax(fits, axis=1)
    every = np.arange(len(places))
    wanted = (draw(2, 1)[:, 0] < probability) & fits[every, first]
    height, width = heights[every, first] * wanted, widths[every, first] * wanted
    top = np.floor(draw(3, 1)[:, 0] * (rows - height + 1))
    left = np.floor(draw(4, 1)[:, 0] * (columns - width + 1))
    return np.stack([top, left, height, width], axis=1).astype(np.int64)


def beta(alpha: float, seed: int, step: int) -> float:
    """A draw from Beta(alpha, alpha), by the method of Jöhnk (1964): candidates until one is accepted."""
    candidates = np.arange(_CANDIDATES)
    x = hashing.uniform(candidates, seed, _SHARE_A, step) ** (1 / alpha)
    y = hashing.uniform(candidates, seed, _SHARE_B, step) ** (1 / alpha)
    accepted = np.flatnonzero((x + y <= 1) & (x + y > 0))
    return float(x[accepted[0]] / (x + y)[accepted[0]]) if len(accepted) else 0.5


def _cut_box(rows: int, columns: int, share: float, seed: int, step: int) -> tuple[int, int, int, int]:
    """Top, left, height, width of CutMix's window: 1 - share of the area around a uniform centre, cut at the edges."""
    side = np.sqrt(1 - share)
    row, column = hashing.integers(np.arange(2), np.array([rows, columns]), seed, _BOX, step).tolist()
    half_height, half_width = int(side * rows) // 2, int(side * columns) // 2
    top, bottom = max(0, row - half_height), min(rows, row + half_height)
    left, right = max(0, column - half_width), min(columns, column + half_width)
    return top, left, bottom - top, right - left
