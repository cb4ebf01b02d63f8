"""Changes of colour as operations of torch, on any device: what shards/decode/colour.py does, for batches on a GPU.

The arithmetic is that of the compiled loops there, operation by operation in float32, so on a CPU the pixels are theirs
to the bit; only a blur, which they sum in whole numbers, may differ by a level. Nothing here waits for the device: the
host knows which samples an operation changes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from shards.decode.colour import BLUE, CUT_OFF, GREEN, RED, TO_LEVELS, kernel_size
from shards.sampling.colour import BLUR, BRIGHTNESS, CONTRAST, GRAY, HUE, IDENTITY, SATURATION, SOLARIZE

Float32Array = npt.NDArray[np.float32]
# Values that are changed at a time, which bounds the memory: float32 tensors of 64 MB, ten of them for the hue.
AT_ONCE = 2**24


def change_colours(
    images: torch.Tensor, operation: npt.NDArray[np.int32], strength: Float32Array, at_once: int = AT_ONCE
) -> None:
    """Changes `images` (n, height, width, 3) uint8 in place: by operations (n, stages) with strengths (n, stages).

    `at_once`: values that are changed at a time, but one image at least.
    """
    steps = _steps(operation, strength, max(1, at_once // max(1, images[0].numel()))) if len(images) else []
    if not steps:
        return
    # One copy each for all operations.
    places = on_device(np.concatenate([step.places for step in steps]), images.device)
    strengths = on_device(np.concatenate([step.strengths for step in steps]), images.device).view(-1, 1, 1, 1)
    end = 0
    for step in steps:
        begin, end = end, end + len(step.places)
        changed = _OPERATIONS[step.operation](
            images.index_select(0, places[begin:end]), strengths[begin:end], step.strengths
        )
        images.index_copy_(0, places[begin:end], changed)


def normalised(images: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """pixel * scale + bias of `images` (n, height, width, 3) uint8, as `dtype`; `scale` and `bias` float32 (3,)."""
    return (images.float() * scale).add_(bias).to(dtype)


def on_device(array: npt.NDArray[Any], device: torch.device) -> torch.Tensor:
    """A tensor of `array`, on its way to `device` in the order of the current stream: the host does not wait."""
    tensor = torch.from_numpy(array)
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


@dataclass(frozen=True)
class _Step:
    """One operation on some of the images."""

    operation: int
    places: npt.NDArray[np.int64]
    """(k,): which images."""
    strengths: Float32Array
    """(k,)"""


def _steps(operation: npt.NDArray[np.int32], strength: Float32Array, most: int) -> list[_Step]:
    """What is to be done, in order, on `most` images at a time."""
    steps = []
    for stage in range(operation.shape[1]):
        for number in np.unique(operation[:, stage]).tolist():
            if number == IDENTITY:
                continue
            places = np.flatnonzero(operation[:, stage] == number)
            for first in range(0, len(places), most):
                part = places[first : first + most]
                steps.append(_Step(number, part, strength[part, stage]))
    return steps


# Each of these takes images (k, height, width, 3) uint8, their strengths float32 (k, 1, 1, 1) on the device, and these
# (k,) on the host, and returns the changed images. Products and sums are rounded one by one, as in the loops.


def _brighten(pixels: torch.Tensor, factor: torch.Tensor, _: Float32Array) -> torch.Tensor:
    return _levels(pixels.float() * factor)


def _contrast(pixels: torch.Tensor, factor: torch.Tensor, _: Float32Array) -> torch.Tensor:
    gray = _gray(pixels)
    # Whole numbers, whose sum is exact in any order.
    mean = (gray.sum((1, 2, 3), dtype=torch.float64, keepdim=True) / gray[0].numel()).float()
    return _levels((pixels.float() * factor).add_(mean * (1.0 - factor)))


def _saturate(pixels: torch.Tensor, factor: torch.Tensor, _: Float32Array) -> torch.Tensor:
    return _levels((pixels.float() * factor).add_(_gray(pixels) * (1.0 - factor)))


def _to_gray(pixels: torch.Tensor, _: torch.Tensor, __: Float32Array) -> torch.Tensor:
    return _gray(pixels).to(torch.uint8).expand(pixels.shape)


def _turn_hue(pixels: torch.Tensor, turn: torch.Tensor, _: Float32Array) -> torch.Tensor:
    red, green, blue = pixels.float().unbind(-1)
    high, low = torch.maximum(torch.maximum(red, green), blue), torch.minimum(torch.minimum(red, green), blue)
    chroma = high - low
    divisor = chroma.clamp(min=1.0)  # a difference of levels, so 0 or at least 1
    hue = 4.0 + (red - green) / divisor
    hue = torch.where(high == green, 2.0 + (blue - red) / divisor, hue)
    hue = torch.where(high == red, (green - blue) / divisor, hue)
    hue += 6.0 * turn.squeeze(-1) + 6.0
    return torch.stack([_channel(hue + before, high, chroma) for before in (0.0, 4.0, 2.0)], -1)


def _channel(angle: torch.Tensor, high: torch.Tensor, chroma: torch.Tensor) -> torch.Tensor:
    """The levels of a channel by the hue, in sixths of a circle, counted from where the channel is highest."""
    angle = angle - 6.0 * (angle * float(np.float32(1 / 6))).trunc_()
    away = (2.0 - (angle - 3.0).abs_()).clamp_(0.0, 1.0)
    return ((high - chroma * away) * float(TO_LEVELS)).to(torch.uint8)


def _blur(pixels: torch.Tensor, _: torch.Tensor, sigma: Float32Array) -> torch.Tensor:
    """With the kernel of colour.py: cut off after four standard deviations or a tenth of the width."""
    height, width = pixels.shape[1:3]
    reach = min(math.ceil(CUT_OFF * sigma.max()), kernel_size(width) // 2, height - 1, width - 1)
    weights = on_device(_gaussians(sigma, reach), pixels.device)
    return _weighted(_weighted(pixels.float(), weights, 1), weights, 2).round_().to(torch.uint8)


def _gaussians(sigma: Float32Array, reach: int) -> Float32Array:
    """Weights (k, 2 * reach + 1, 1, 1, 1) that add up to 1, each by its `sigma` (k,) alone, whatever `reach` is."""
    wide, offset = sigma.astype(np.float64)[:, None], np.arange(-reach, reach + 1)
    exact = np.exp(-0.5 * (offset / wide) ** 2) * (np.abs(offset) <= np.ceil(CUT_OFF * wide))
    weights: Float32Array = (exact / exact.cumsum(1)[:, -1:]).astype(np.float32)[:, :, None, None, None]
    return weights


def _weighted(values: torch.Tensor, weights: torch.Tensor, side: int) -> torch.Tensor:
    """The sum over neighbours along the dimension `side`, mirrored at its ends: `weights` (k, taps, 1, 1, 1)."""
    count, taps = values.shape[side], weights.shape[1]
    place = torch.arange(-(taps // 2), count + taps // 2, device=values.device).abs_()
    padded = values.index_select(side, torch.minimum(place, 2 * (count - 1) - place))
    total = padded.narrow(side, 0, count) * weights[:, 0]
    for tap in range(1, taps):
        total.addcmul_(padded.narrow(side, tap, count), weights[:, tap])
    return total


def _solarize(pixels: torch.Tensor, threshold: torch.Tensor, _: Float32Array) -> torch.Tensor:
    return torch.where(pixels >= threshold, 255 - pixels, pixels)


def _gray(pixels: torch.Tensor) -> torch.Tensor:
    """Gray levels float32 (k, height, width, 1), cut off to whole ones."""
    red, green, blue = pixels.float().unbind(-1)
    return (red * float(RED) + green * float(GREEN) + blue * float(BLUE)).trunc_().unsqueeze(-1)


def _levels(values: torch.Tensor) -> torch.Tensor:
    return values.clamp_(0.0, 255.0).to(torch.uint8)


_OPERATIONS: dict[int, Callable[[torch.Tensor, torch.Tensor, Float32Array], torch.Tensor]] = {
    BRIGHTNESS: _brighten,
    CONTRAST: _contrast,
    SATURATION: _saturate,
    HUE: _turn_hue,
    GRAY: _to_gray,
    BLUR: _blur,
    SOLARIZE: _solarize,
}
