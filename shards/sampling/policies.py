"""Augmentation policies as data: which operations each sample gets, how strong, and with which sign.

TrivialAugment (Müller and Hutter, "TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation", 2021, its wide
space), RandAugment (Cubuk et al., "RandAugment: Practical automated data augmentation with a reduced search space",
2019) and AutoAugment (Cubuk et al., "AutoAugment: Learning Augmentation Strategies from Data", 2018, the policy found
on a part of ImageNet), with the operations, ranges, probabilities and defaults of torchvision's TrivialAugmentWide,
RandAugment and AutoAugment, under which its published weights were trained.

What is drawn is a pure function of (seed, epoch, sample id), as order, crops and flips are.
`shards/decode/policy_operators.py` applies it.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from shards.sampling.hashing import bits, integers, uniform
from shards.sampling.order import SHARDS

Policy = Literal["trivial", "rand", "auto"]
POLICIES: tuple[Policy, ...] = ("trivial", "rand", "auto")

Int32Array = npt.NDArray[np.int32]

INPUTS = ("operation", "magnitude", "sign")
"""The arrays of `draws`, int32 (n, stages): inputs of the graph."""

# RandAugment's strength, of 31 steps.
RAND_MAGNITUDE = 9

# The purposes of the numbers drawn, after those in shards/sampling/order.py.
OPERATION, MAGNITUDE, SIGN, RUN = range(SHARDS + 1, SHARDS + 5)

# Operations by their names in DALI; those that a policy draws evenly come first.
OPERATIONS = (
    "identity",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "rotate",
    "brightness",
    "color",
    "contrast",
    "sharpness",
    "posterize",
    "solarize",
    "auto_contrast",
    "equalize",
    "invert",
)
_EVEN = len(OPERATIONS) - 1


@dataclass(frozen=True)
class Space:
    """What a policy chooses from. Magnitudes are `steps` values, evenly from the first of a range to the second."""

    stages: int
    """Operations applied one after the other."""
    steps: int
    ranges: dict[str, tuple[float, float]]
    """Shear: the slope. Translate: shares of the side, or pixels. Rotate: degrees. Brightness, color, contrast and
    sharpness: how far from 1, which leaves the image as it is. Posterize: bits kept. Solarize: the level from
    which on values are inverted."""
    signed: frozenset[str]
    """The operations whose magnitude is negated where `sign` is 1."""
    pixels: bool
    """Whether translations are in pixels."""


def _space(
    stages: int, steps: int, *, shear: float, translate: float, rotate: float, enhance: float, kept: int, pixels: bool
) -> Space:
    signed = {
        **dict.fromkeys(("shear_x", "shear_y"), shear),
        **dict.fromkeys(("translate_x", "translate_y"), translate),
        "rotate": rotate,
        **dict.fromkeys(("brightness", "color", "contrast", "sharpness"), enhance),
    }
    ranges = {name: (0.0, most) for name, most in signed.items()}
    ranges |= {"posterize": (8.0, float(kept)), "solarize": (255.0, 0.0)}
    return Space(stages, steps, ranges, frozenset(signed), pixels)


SPACES: dict[Policy, Space] = {
    "trivial": _space(1, 31, shear=0.99, translate=32.0, rotate=135.0, enhance=0.99, kept=2, pixels=True),
    "rand": _space(2, 31, shear=0.3, translate=150 / 331, rotate=30.0, enhance=0.9, kept=4, pixels=False),
    "auto": _space(2, 10, shear=0.3, translate=150 / 331, rotate=30.0, enhance=0.9, kept=4, pixels=False),
}

# AutoAugment's pairs: operation, probability, step of the magnitude. One pair is drawn for each sample.
AUTO: tuple[tuple[tuple[str, float, int], tuple[str, float, int]], ...] = (
    (("posterize", 0.4, 8), ("rotate", 0.6, 9)),
    (("solarize", 0.6, 5), ("auto_contrast", 0.6, 0)),
    (("equalize", 0.8, 0), ("equalize", 0.6, 0)),
    (("posterize", 0.6, 7), ("posterize", 0.6, 6)),
    (("equalize", 0.4, 0), ("solarize", 0.2, 4)),
    (("equalize", 0.4, 0), ("rotate", 0.8, 8)),
    (("solarize", 0.6, 3), ("equalize", 0.6, 0)),
    (("posterize", 0.8, 5), ("equalize", 1.0, 0)),
    (("rotate", 0.2, 3), ("solarize", 0.6, 8)),
    (("equalize", 0.6, 0), ("posterize", 0.4, 6)),
    (("rotate", 0.8, 8), ("color", 0.4, 0)),
    (("rotate", 0.4, 9), ("equalize", 0.6, 0)),
    (("equalize", 0.0, 0), ("equalize", 0.8, 0)),
    (("invert", 0.6, 0), ("equalize", 1.0, 0)),
    (("color", 0.6, 4), ("contrast", 1.0, 8)),
    (("rotate", 0.8, 8), ("color", 1.0, 2)),
    (("color", 0.8, 8), ("solarize", 0.8, 7)),
    (("sharpness", 0.4, 7), ("invert", 0.6, 0)),
    (("shear_x", 0.6, 5), ("equalize", 1.0, 0)),
    (("color", 0.4, 0), ("equalize", 0.6, 0)),
    (("equalize", 0.4, 0), ("solarize", 0.2, 4)),
    (("solarize", 0.6, 5), ("auto_contrast", 0.6, 0)),
    (("invert", 0.6, 0), ("equalize", 1.0, 0)),
    (("color", 0.6, 4), ("contrast", 1.0, 8)),
    (("equalize", 0.8, 0), ("equalize", 0.6, 0)),
)
_AUTO_OPERATION = np.array([[OPERATIONS.index(name) for name, _, _ in pair] for pair in AUTO])
_AUTO_PROBABILITY = np.array([[probability for _, probability, _ in pair] for pair in AUTO])
_AUTO_MAGNITUDE = np.array([[step for _, _, step in pair] for pair in AUTO])


def operations(policy: Policy) -> tuple[str, ...]:
    """The operations that `policy` knows; `draws` gives positions in it, and `identity` has position 0."""
    return OPERATIONS if policy == "auto" else OPERATIONS[:_EVEN]


def draws(policy: Policy, ids: npt.NDArray[np.int64], seed: int, epoch: int) -> dict[str, Int32Array]:
    """What the samples `ids` (n,) get in this epoch: arrays int32 (n, stages), named as in INPUTS.

    `operation`: a position in `operations(policy)`; `magnitude`: a step of the operation's range, in
    [0, SPACES[policy].steps); `sign`: 1 to negate it, else 0.
    """
    stages = range(SPACES[policy].stages)
    sign = np.stack([bits(ids, seed, epoch, SIGN, stage) >> np.uint64(63) for stage in stages], axis=1)
    if policy == "auto":
        pair = integers(ids, len(AUTO), seed, epoch, OPERATION)
        share = np.stack([uniform(ids, seed, epoch, RUN, stage) for stage in stages], axis=1)
        operation = np.where(share < _AUTO_PROBABILITY[pair], _AUTO_OPERATION[pair], 0)
        magnitude = _AUTO_MAGNITUDE[pair]
    else:
        operation = np.stack([integers(ids, _EVEN, seed, epoch, OPERATION, stage) for stage in stages], axis=1)
        if policy == "rand":
            magnitude = np.full_like(operation, RAND_MAGNITUDE)
        else:
            steps = SPACES[policy].steps
            magnitude = np.stack([integers(ids, steps, seed, epoch, MAGNITUDE, stage) for stage in stages], axis=1)
    return {
        "operation": operation.astype(np.int32),
        "magnitude": magnitude.astype(np.int32),
        "sign": sign.astype(np.int32),
    }
