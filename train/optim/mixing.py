"""Mixup, CutMix and random erasing, on the device where the network computes.

Every draw is a pure function of (seed, optimizer step), and for erasing also of the image's place in the global batch.
So a resumed run draws the same without a generator's state, and all ranks draw the same.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from shards.sampling import hashing
from train.options import Mixing

# Keys of the independent random sequences.
_WHICH, _WEIGHT_A, _WEIGHT_B, _BOX, _ERASE = 101, 102, 103, 104, 105
# Candidates for one draw from a beta distribution. For alpha 2 one in six is accepted.
_CANDIDATES = 256
# The share of a mixed image from which on its label is right for binary cross-entropy.
_RIGHT = 0.2
# Random erasing as published: range of the erased part of the area, range of height / width, and attempts.
_AREA, _RATIO, _ATTEMPTS = (0.02, 1 / 3), (0.3, 3.3), 10


@dataclass(frozen=True)
class Mixed:
    """Images (B, 3, H, W), each a mix of two; their labels (B,) count with `weight`, the others' with 1 - weight."""

    images: Tensor
    labels: Tensor
    others: Tensor
    weight: float

    def loss(self, logits: Tensor, kind: Literal["ce", "bce"] = "ce", label_smoothing: float = 0.0) -> Tensor:
        """The loss with both labels, summed over the batch (scalar).

        ce: the weighted sum of the cross-entropies. bce: binary cross-entropy, the mean over the classes; a label is
        wholly right if it has more than a fifth of the weight, as in "ResNet strikes back" (arXiv:2110.00476) and the
        commands that its authors trained with.
        """
        if kind == "bce":
            logits = logits.float()  # a sum over batch and classes
            right = torch.zeros_like(logits)
            for labels, weight in ((self.labels, self.weight), (self.others, 1 - self.weight)):
                if weight > _RIGHT:
                    right.scatter_(1, labels.unsqueeze(1), 1.0)
            return F.binary_cross_entropy_with_logits(logits, right, reduction="sum") / logits.shape[1]
        own = F.cross_entropy(logits, self.labels, reduction="sum", label_smoothing=label_smoothing)
        if self.weight == 1.0:
            return own
        other = F.cross_entropy(logits, self.others, reduction="sum", label_smoothing=label_smoothing)
        return self.weight * own + (1 - self.weight) * other


def mix(images: Tensor, labels: Tensor, mixing: Mixing, seed: int, step: int) -> Mixed:
    """Mixes each image with its neighbour in the batch, by mixup or CutMix, as `mixing` says; returns new tensors.

    step: the optimizer step; all its images are mixed in the same proportion.
    """
    neighbour = labels.roll(1)
    both = mixing.mixup > 0 and mixing.cutmix > 0
    cut = mixing.cutmix > 0 and (not both or float(hashing.uniform(step, seed, _WHICH)) < 0.5)
    alpha = mixing.cutmix if cut else mixing.mixup
    if not alpha:
        return Mixed(images, labels, labels, 1.0)
    weight = beta(alpha, seed, step)
    if not cut:
        return Mixed(torch.lerp(images.roll(1, 0), images, weight), labels, neighbour, weight)
    top, left, height, width = _cut_box(images.shape[2], images.shape[3], weight, seed, step)
    mixed = images.clone()
    box = (..., slice(top, top + height), slice(left, left + width))
    mixed[box] = images.roll(1, 0)[box]
    return Mixed(mixed, labels, neighbour, 1 - height * width / (images.shape[2] * images.shape[3]))


def erase(images: Tensor, probability: float, seed: int, step: int, places: npt.NDArray[np.int64]) -> Tensor:
    """A new tensor in which a rectangle of some images is zero, which is the mean colour of the data set.

    places: (B,), the places of the images in the global batch of optimizer step `step`.
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
    """(B, 4): top, left, height, width of each image's rectangle; height and width are 0 where nothing is erased."""

    def draw(number: int, attempts: int) -> npt.NDArray[np.float64]:
        return np.stack([hashing.uniform(places, seed, _ERASE, step, number, i) for i in range(attempts)], axis=1)

    area = rows * columns * (_AREA[0] + (_AREA[1] - _AREA[0]) * draw(0, _ATTEMPTS))
    ratio = np.exp(np.log(_RATIO[0]) + (np.log(_RATIO[1]) - np.log(_RATIO[0])) * draw(1, _ATTEMPTS))
    heights, widths = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
    fits = (heights < rows) & (widths < columns)
    first = np.argmax(fits, axis=1)
    every = np.arange(len(places))
    erased = (draw(2, 1)[:, 0] < probability) & fits[every, first]
    height, width = heights[every, first] * erased, widths[every, first] * erased
    top = np.floor(draw(3, 1)[:, 0] * (rows - height + 1))
    left = np.floor(draw(4, 1)[:, 0] * (columns - width + 1))
    return np.stack([top, left, height, width], axis=1).astype(np.int64)


def beta(alpha: float, seed: int, step: int) -> float:
    """A draw from Beta(alpha, alpha) by rejection sampling (Jöhnk, 1964)."""
    candidates = np.arange(_CANDIDATES)
    x = hashing.uniform(candidates, seed, _WEIGHT_A, step) ** (1 / alpha)
    y = hashing.uniform(candidates, seed, _WEIGHT_B, step) ** (1 / alpha)
    accepted = np.flatnonzero((x + y <= 1) & (x + y > 0))
    return float(x[accepted[0]] / (x + y)[accepted[0]]) if len(accepted) else 0.5


def _cut_box(rows: int, columns: int, weight: float, seed: int, step: int) -> tuple[int, int, int, int]:
    """Top, left, height, width of CutMix's box: 1 - weight of the area around a random centre, cut at the edges."""
    side = np.sqrt(1 - weight)
    row, column = hashing.integers(np.arange(2), np.array([rows, columns]), seed, _BOX, step).tolist()
    half_height, half_width = int(side * rows) // 2, int(side * columns) // 2
    top, bottom = max(0, row - half_height), min(rows, row + half_height)
    left, right = max(0, column - half_width), min(columns, column + half_width)
    return top, left, bottom - top, right - left
