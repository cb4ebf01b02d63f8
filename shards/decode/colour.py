"""Changes of colour on a CPU: applies what shards/sampling/colour.py drew to 8-bit RGB images, in place.

Each operation is torchvision's on tensors of 8 bits and leaves whole levels, as there; docs/loader.md has the distances
from it. The loops are compiled by numba and run without the interpreter's lock. Each works on contiguous lines of one
channel, or of all three where they are treated alike, so that the compiler finds vector instructions for it.
"""

from collections.abc import Mapping
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils

from shards.decode.finish import PIECES, Finisher
from shards.decode.vectors import address, constant, data_of, intrinsic, load, same, size_of, upper_half
from shards.sampling.colour import BLUR, BRIGHTNESS, CONTRAST, GRAY, HUE, IDENTITY, SATURATION, SOLARIZE

UInt8Array = npt.NDArray[np.uint8]

# What torchvision weights the channels by for grayscale.
RED, GREEN, BLUE = np.float32(0.2989), np.float32(0.587), np.float32(0.114)
ZERO, ONE, THREE, SIX, MOST = (np.float32(value) for value in (0, 1, 3, 6, 255))
# How torchvision makes levels of its floating-point values from 0 to 1, here from 0 to 255: the fraction is cut off.
TO_LEVELS = np.float32(255.999 / 255)
# Standard deviations after which the kernel of a blur is cut off: what lies beyond is less than a hundredth of a level.
CUT_OFF = 4.0
# Values of a row that are blurred at a time.
LANES = 32


class ColourChanges:
    """Changes the colours of batches that were decoded and resized on a CPU, where a policy has a graph of DALI's."""

    def __init__(self, finisher: Finisher) -> None:
        self._finisher = finisher

    def __call__(self, images: UInt8Array, drawn: Mapping[str, npt.NDArray[Any]]) -> UInt8Array:
        """Changes `images` (n, height, width, 3) uint8 in place, by what `three_draws` gave; returns them."""
        operation, strength = drawn["operation"], drawn["strength"]
        self._finisher.each(
            len(images),
            lambda first, last: _change_each(images[first:last], operation[first:last], strength[first:last]),
            PIECES,
        )
        return images


@numba.njit(nogil=True, cache=True)
def _change_each(images, operation, strength):  # type: ignore[no-untyped-def]
    for i in range(len(images)):
        change_colour(images[i], operation[i], strength[i])


@numba.njit(nogil=True, cache=True)
def change_colour(image, operation, strength):  # type: ignore[no-untyped-def]
    """Applies operations (stages,) with their strengths (stages,) to `image` (height, width, 3) uint8, in place."""
    flat = image.reshape(image.size)
    for stage in range(operation.size):
        what, how = operation[stage], np.float32(strength[stage])
        if what == IDENTITY:
            continue
        if what == BRIGHTNESS:
            _blend(flat, how, ZERO)
        elif what == CONTRAST:
            _blend(flat, how, _mean_gray(image) * (ONE - how))
        elif what in (SATURATION, GRAY):
            _saturate(image, how if what == SATURATION else ZERO)
        elif what == HUE:
            _turn_hue(image, how)
        elif what == BLUR:
            _blur(image, np.float64(how))
        elif what == SOLARIZE:
            _solarize(flat, np.uint8(how))


@numba.njit(nogil=True, cache=True)
def _blend(values, factor, offset):  # type: ignore[no-untyped-def]
    for x in range(values.size):
        level = np.float32(values[x]) * factor + offset
        level = ZERO if level < ZERO else level
        values[x] = np.uint8(np.int32(MOST if level > MOST else level))


@numba.njit(nogil=True, cache=True)
def _solarize(values, threshold):  # type: ignore[no-untyped-def]
    for x in range(values.size):
        level = values[x]
        values[x] = np.uint8(255) - level if level >= threshold else level


@numba.njit(nogil=True, cache=True)
def _split(row, red, green, blue):  # type: ignore[no-untyped-def]
    for x in range(red.size):
        red[x] = row[3 * x]
        green[x] = row[3 * x + 1]
        blue[x] = row[3 * x + 2]


@numba.njit(nogil=True, cache=True)
def _join(red, green, blue, row):  # type: ignore[no-untyped-def]
    for x in range(red.size):
        row[3 * x] = red[x]
        row[3 * x + 1] = green[x]
        row[3 * x + 2] = blue[x]


@numba.njit(nogil=True, cache=True)
def _gray(red, green, blue, out):  # type: ignore[no-untyped-def]
    for x in range(out.size):
        out[x] = np.int32(np.float32(red[x]) * RED + np.float32(green[x]) * GREEN + np.float32(blue[x]) * BLUE)


@numba.njit(nogil=True, cache=True)
def _mean_gray(image):  # type: ignore[no-untyped-def]
    height, width, _ = image.shape
    planes, gray = np.empty((3, width), np.uint8), np.empty(width, np.int32)
    total = np.int64(0)
    for y in range(height):
        _split(image[y].reshape(3 * width), planes[0], planes[1], planes[2])
        _gray(planes[0], planes[1], planes[2], gray)
        total += _sum(gray)
    return np.float32(total / (height * width))


@numba.njit(nogil=True, cache=True)
def _sum(values):  # type: ignore[no-untyped-def]
    total = np.int32(0)
    for x in range(values.size):
        total += values[x]
    return total


@numba.njit(nogil=True, cache=True)
def _saturate(image, factor):  # type: ignore[no-untyped-def]
    """Levels between gray (factor 0) and the image (factor 1), and beyond."""
    height, width, _ = image.shape
    planes, gray = np.empty((3, width), np.uint8), np.empty(width, np.int32)
    for y in range(height):
        row = image[y].reshape(3 * width)
        _split(row, planes[0], planes[1], planes[2])
        _gray(planes[0], planes[1], planes[2], gray)
        for channel in range(3):
            _from_gray(planes[channel], gray, factor)
        _join(planes[0], planes[1], planes[2], row)


@numba.njit(nogil=True, cache=True)
def _from_gray(plane, gray, factor):  # type: ignore[no-untyped-def]
    rest = ONE - factor
    for x in range(plane.size):
        level = np.float32(plane[x]) * factor + np.float32(gray[x]) * rest
        level = ZERO if level < ZERO else level
        plane[x] = np.uint8(np.int32(MOST if level > MOST else level))


@numba.njit(nogil=True, cache=True)
def _turn_hue(image, turn):  # type: ignore[no-untyped-def]
    height, width, _ = image.shape
    planes = np.empty((3, width), np.uint8)
    for y in range(height):
        row = image[y].reshape(3 * width)
        _split(row, planes[0], planes[1], planes[2])
        _turn_row(planes[0], planes[1], planes[2], SIX * turn)
        _join(planes[0], planes[1], planes[2], row)


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _turn_row(red, green, blue, sixths):  # type: ignore[no-untyped-def]
    """Turns the hue, with the same largest and smallest level of a pixel, by so many sixths of a circle."""
    for x in range(red.size):
        r, g, b = np.float32(red[x]), np.float32(green[x]), np.float32(blue[x])
        high = r if r > g else g
        high = high if high > b else b
        low = r if r < g else g
        low = low if low < b else b
        chroma = high - low
        divisor = ONE if chroma == ZERO else chroma
        hue = np.float32(4) + (r - g) / divisor
        hue = np.float32(2) + (b - r) / divisor if high == g else hue
        hue = (g - b) / divisor if high == r else hue
        hue += sixths + SIX
        # A channel is high, low, or on its way between them, by how far the hue is from where it is highest.
        red[x] = np.uint8(_channel(hue, ZERO, high, chroma))
        green[x] = np.uint8(_channel(hue, np.float32(4), high, chroma))
        blue[x] = np.uint8(_channel(hue, np.float32(2), high, chroma))


@numba.njit(nogil=True, cache=True)
def _channel(hue, offset, high, chroma):  # type: ignore[no-untyped-def]
    """The level of the channel whose hue is `offset` sixths before the red one's, for a hue of 0 or more."""
    angle = hue + offset
    angle -= SIX * np.float32(np.int32(angle * np.float32(1 / 6)))
    away = angle - THREE
    away = np.float32(2) - (away if away > ZERO else -away)  # 2 - |angle - 3|: at most 0 where the channel is high
    away = ZERO if away < ZERO else away
    away = ONE if away > ONE else away
    return np.int32((high - chroma * away) * TO_LEVELS)


@numba.njit(nogil=True, cache=True)
def _blur(image, sigma):  # type: ignore[no-untyped-def]
    """A Gaussian blur whose kernel is an odd tenth of the width or less, with the image mirrored at its edges."""
    height, width, _ = image.shape
    radius = min(int(np.ceil(CUT_OFF * sigma)), kernel_size(width) // 2, height - 1, width - 1)
    if radius < 1:
        return
    weights = _gaussian(radius, sigma)
    tall = np.empty((height + 2 * radius, 3 * width), np.uint8)
    for y in range(height + 2 * radius):
        _copy(image[_mirrored(y - radius, height)].reshape(3 * width), tall[y])
    rows = tall.reshape(height + 2 * radius, width, 3)
    # 256ths of a level, with room on both sides for what lies beyond the edges.
    line = np.zeros(3 * (width + 2 * radius) + LANES, np.uint16)
    middle = line[3 * radius : 3 * (radius + width)]
    blurred = np.empty(3 * width + LANES, np.uint8)
    rounding = np.uint16(128 + 1 + weights.size)  # half of one step, and what the two sums lose in the mean
    for y in range(height):
        _sum_rows(rows, y, weights, middle)
        for x in range(radius):
            for channel in range(3):
                line[3 * (radius - 1 - x) + channel] = middle[3 * (x + 1) + channel]
                line[3 * (radius + width + x) + channel] = middle[3 * (width - 2 - x) + channel]
        for x in range(0, 3 * width, LANES):
            _blur_lanes(line, x, weights, rounding, blurred)
        _copy(blurred[: 3 * width], image[y].reshape(3 * width))


@numba.njit(nogil=True, cache=True)
def _sum_rows(region, first, weights, out):  # type: ignore[no-untyped-def]
    """Weighted sum of whole rows of `region` from row `first` on, in 256ths of a level: uint16 (values of a row,)."""
    if out.size < LANES:
        for x in range(out.size):
            total = np.uint32(0)
            for tap in range(weights.size):
                value = np.uint32(region[first + tap, x // 3, x % 3]) << np.uint32(8)
                total += (value * np.uint32(weights[tap])) >> np.uint32(16)
            out[x] = total
        return
    stride = region.strides[0]
    start, last = first * stride, out.size - LANES
    for x in range(0, last, LANES):
        _sum_lanes(region, start + x, stride, weights, out, x)
    # The last values, some of them a second time.
    _sum_lanes(region, start + last, stride, weights, out, last)


@numba.njit(nogil=True, cache=True)
def kernel_size(width):  # type: ignore[no-untyped-def]
    """Of a blur: a tenth of the view's side, an odd number, as SimCLR has it."""
    return int(0.1 * width) // 2 * 2 + 1


@numba.njit(nogil=True, cache=True)
def _mirrored(place, count):  # type: ignore[no-untyped-def]
    place = abs(place)
    return 2 * (count - 1) - place if place >= count else place


@numba.njit(nogil=True, cache=True)
def _gaussian(radius, sigma):  # type: ignore[no-untyped-def]
    """Weights (2 * radius + 1,) that add up to 65,535."""
    exact = np.exp(-0.5 * ((np.arange(2 * radius + 1) - radius) / sigma) ** 2)
    ends = np.rint(np.cumsum(exact) * (65535.0 / exact.sum()))
    weights = np.empty(exact.size, np.uint16)
    before = 0.0
    for tap in range(exact.size):
        weights[tap] = np.uint16(ends[tap] - before)
        before = ends[tap]
    return weights


@numba.njit(nogil=True, cache=True)
def _copy(line, out):  # type: ignore[no-untyped-def]
    for x in range(out.size):
        out[x] = line[x]


@intrinsic
def _sum_lanes(typing, pixels, at, stride, weights, out, to):  # type: ignore[no-untyped-def]
    """out[to : to + 32] = the sum over taps of pixels[at + tap * stride :][:32] * 256 * weights[tap] / 65536."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        source, factors, target = (data_of(context, builder, signature, args, i) for i in (0, 3, 4))
        sums = ir.VectorType(ir.IntType(16), LANES)
        total = cgutils.alloca_once(builder, sums)  # type: ignore[no-untyped-call]
        builder.store(constant(sums, 0), total)
        with cgutils.for_range(builder, size_of(context, builder, signature, args, 3)) as tap:
            place = builder.add(args[1], builder.mul(tap.index, args[2]))
            values = builder.zext(load(builder, source, place, 8, LANES), sums)
            weight = same(builder, builder.load(builder.gep(factors, [tap.index])), LANES)
            product = upper_half(builder, builder.shl(values, constant(sums, 8)), weight)
            builder.store(builder.add(builder.load(total), product), total)
        builder.store(builder.load(total), address(builder, target, args[5], sums), align=2)
        return context.get_dummy_value()

    return types.void(pixels, types.intp, types.intp, weights, out, types.intp), generate


@intrinsic
def _blur_lanes(typing: Any, line: Any, at: Any, weights: Any, rounding: Any, out: Any) -> Any:
    """out[at : at + 32] = the sum over taps of line[at + 3 * tap :][:32] * weights[tap] / 65536, rounded to levels."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        source, factors, target = (data_of(context, builder, signature, args, i) for i in (0, 2, 4))
        sums = ir.VectorType(ir.IntType(16), LANES)
        total = cgutils.alloca_once(builder, sums)  # type: ignore[no-untyped-call]
        builder.store(same(builder, args[3], LANES), total)
        with cgutils.for_range(builder, size_of(context, builder, signature, args, 2)) as tap:
            place = builder.add(args[1], builder.mul(tap.index, ir.IntType(64)(3)))
            weight = same(builder, builder.load(builder.gep(factors, [tap.index])), LANES)
            product = upper_half(builder, load(builder, source, place, 16, LANES), weight)
            builder.store(builder.add(builder.load(total), product), total)
        levels = builder.lshr(builder.load(total), constant(sums, 8))
        levels = builder.trunc(levels, ir.VectorType(ir.IntType(8), LANES))
        builder.store(levels, address(builder, target, args[1], levels.type), align=1)
        return context.get_dummy_value()

    return types.void(line, types.intp, weights, types.uint16, out), generate
