"""Changes of colour as data: which operations a view of a sample gets, in which order, and how strong.

ColorJitter, RandomGrayscale, GaussianBlur and RandomSolarize as torchvision defines them, in the order that methods of
self-supervised learning have them in; and 3-Augment (Touvron, Cord, Jégou, "DeiT III: Revenge of the ViT", 2022).

What is drawn is a pure function of (seed, epoch, number), as crops are. `shards/decode/colour.py` applies it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from shards.common.arguments import checked_class, flag, interval, number, share
from shards.common.errors import UsageError
from shards.sampling.hashing import bits, integers, uniform
from shards.sampling.policies import Policy

# Operations as `draws` gives them, and what their strength is:
# brightness, contrast, saturation: a factor; hue: a part of a turn; blur: sigma in pixels; solarize: a level.
IDENTITY, BRIGHTNESS, CONTRAST, SATURATION, HUE, GRAY, BLUR, SOLARIZE = range(8)
# From this level on solarize inverts.
THRESHOLD = 128.0
# From which a blur's standard deviation is drawn by default, in pixels.
SIGMAS = (0.1, 2.0)
# Operations of a view: one of three, the jitter's four, gray, blur, solarize.
STAGES = 8

# The purposes of the numbers drawn for a view, after those of its crop (shards/sampling/order.py).
(JITTER, STRENGTH, PLACE, RUN_GRAY, RUN_BLUR, SIGMA, RUN_SOLARIZE, CHOICE) = range(32, 40)

# What an image of a plain loader can be augmented with: a policy, or 3-Augment.
Augment = Policy | Literal["three"]


@checked_class
@dataclass(frozen=True)
class Colour:
    """How the colours of a view change. Without arguments, not at all."""

    brightness: float = 0.0
    """A factor is drawn from 1 - brightness to 1 + brightness, 0 at least; so for contrast and saturation."""
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    """The hue turns by up to this part of a circle, 0.5 at most, to either side."""
    jitter: float = 1.0
    """The probability of these four, which come in an order drawn for the sample."""
    gray: float = 0.0
    """The probability of grayscale, after the jitter."""
    blur: float = 0.0
    """The probability of a Gaussian blur, after that."""
    sigma: tuple[float, float] = SIGMAS
    """From which its standard deviation is drawn, in pixels of the view; the kernel is cut off after four of them."""
    solarize: float = 0.0
    """The probability that levels from 128 on are inverted, at the end."""
    one_of_three: bool = False
    """3-Augment: exactly one of gray, solarize and blur, each as likely, and before the jitter."""

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "saturation", "hue"):
            number(name, getattr(self, name), 0, 0.5 if name == "hue" else None)
        for name in ("jitter", "gray", "blur", "solarize"):
            share(name, getattr(self, name))
        interval("sigma", self.sigma, 0.01, 100)
        if flag("one_of_three", self.one_of_three) and (self.gray or self.blur or self.solarize):
            raise UsageError("one_of_three chooses gray, blur or solarize itself: leave out their probabilities")
        if self.jitter != 1 and not (self.brightness or self.contrast or self.saturation or self.hue):
            raise UsageError("jitter is the probability of brightness, contrast, saturation and hue: give one of them")
        if tuple(self.sigma) != SIGMAS and not (self.blur or self.one_of_three):
            raise UsageError("sigma is for blur: give its probability")


NO_CHANGE = Colour()


def draws(
    colours: Sequence[Colour], numbers: npt.NDArray[np.int64], seed: int, *stream: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """What the views `numbers` (n, views) of n samples get: operations and their strengths, (n, views, `STAGES`) both.

    `colours`: of each view.
    """
    shape = (*numbers.shape, STAGES)
    operation, strength = np.zeros(shape, np.int32), np.zeros(shape, np.float32)
    if all(colour == NO_CHANGE for colour in colours):
        return operation, strength
    of = {
        field.name: np.array([getattr(colour, field.name) for colour in colours], np.float64)
        for field in fields(Colour)
    }

    def runs(name: str, purpose: int) -> npt.NDArray[np.bool_]:
        return np.asarray(uniform(numbers, seed, *stream, purpose) < of[name])

    # The jitter: four operations at places 1 to 4, in the order of four random words.
    words = np.stack([bits(numbers, seed, *stream, PLACE, each) for each in range(4)], axis=-1)
    place = 1 + np.argsort(words, axis=-1, kind="stable")
    jittered = runs("jitter", JITTER)
    for each, name in enumerate(("brightness", "contrast", "saturation", "hue")):
        width = of[name]
        low, high = (-width, width) if name == "hue" else (np.maximum(0.0, 1.0 - width), 1.0 + width)
        drawn = low + (high - low) * uniform(numbers, seed, *stream, STRENGTH, each)
        at = place[..., each : each + 1]
        np.put_along_axis(operation, at, np.where(jittered & (width > 0), BRIGHTNESS + each, IDENTITY)[..., None], -1)
        np.put_along_axis(strength, at, drawn[..., None], -1)

    # torchvision's GaussianBlur draws sigma evenly.
    sigma = of["sigma"][:, 0] + (of["sigma"][:, 1] - of["sigma"][:, 0]) * uniform(numbers, seed, *stream, SIGMA)
    for stage, (name, purpose, number_of) in enumerate(
        (("gray", RUN_GRAY, GRAY), ("blur", RUN_BLUR, BLUR), ("solarize", RUN_SOLARIZE, SOLARIZE)), 5
    ):
        operation[..., stage] = np.where(runs(name, purpose), number_of, IDENTITY)
    strength[..., 6], strength[..., 7] = sigma, THRESHOLD

    three = integers(numbers, 3, seed, *stream, CHOICE)
    operation[..., 0] = np.where(of["one_of_three"] > 0, np.array([GRAY, SOLARIZE, BLUR])[three], IDENTITY)
    strength[..., 0] = np.where(three == 2, sigma, THRESHOLD)
    return operation, strength


# DeiT III's, for single images.
THREE_AUGMENT = Colour(0.3, 0.3, 0.3, one_of_three=True)
# A part of the stream, as VIEW is of views (shards/sampling/views.py).
THREE = 0x3341


def three_draws(numbers: npt.NDArray[np.int64], seed: int, epoch: int) -> dict[str, npt.NDArray[Any]]:
    """What 3-Augment does to the draws `numbers` (n,) in this epoch: "operation" and "strength", (n, `STAGES`)."""
    operation, strength = draws([THREE_AUGMENT], numbers[:, None], seed, epoch, THREE)
    return {"operation": operation[:, 0], "strength": strength[:, 0]}
