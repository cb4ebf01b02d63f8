"""Antialiased resize of a window of 8-bit RGB pixels to a square: torchvision's and Pillow's filters.

The sums and their weights are in `filters`. Mirroring costs nothing: the columns are weighted in reverse order.
"""

import numba
import numpy as np
import numpy.typing as npt

from shards.decode.filters import bicubic, bilinear
from shards.decode.vectors import copy_bytes
from shards.sampling.crops import Corners

UInt8Array = npt.NDArray[np.uint8]
Float32Array = npt.NDArray[np.float32]


@numba.njit(nogil=True, cache=True)
def resample(
    region: UInt8Array, start: Corners, end: Corners, mirror: np.int32, cubic: bool | None, out: UInt8Array
) -> None:
    """Resizes a window of `region` into `out`, antialiased: bilinear where `cubic` is None, otherwise bicubic.

    None has a type of its own, so numba compiles the one that is used and not both.

    `region` (height, width, 3), may be columns of a wider image; `out` (rows, columns, 3), contiguous. `start` and
    `end` (2,): the window's corners, (row, column) in pixels of the region, also between pixels; the filter reads
    what lies around the window as far as the region goes. `mirror`: 1 to flip left and right, else 0. Raises
    ValueError for a window that is empty or not inside the region, and for pixels that do not lie side by side.
    """
    _check(region, start, end)
    height, width, _ = out.shape
    flat = out.reshape(out.size)
    if cubic is not None:
        above, weights, bits, across = _cubic(region, start, end, mirror, (height, width))
        for y in range(height):
            bicubic.sum_rows(across, above[y] - above[0], weights, y, bits, flat, 3 * y * width, 3 * width)
        return
    above, down, rows, at, across, columns, rounding = _linear(region, start, end, mirror, (height, width))
    sums, lines = bilinear.room(region, width)
    for y in range(0, height, bilinear.ROWS):
        bilinear.sum_rows(region, above, down, rows, y, sums)
        bilinear.sum_columns(sums, at, across, columns, rounding, lines, width, None)
        copy_bytes(lines, 0, 3 * min(bilinear.ROWS, height - y) * width, flat, 3 * y * width)


@numba.njit(nogil=True, cache=True)
def resample_normalise(
    region: UInt8Array,
    start: Corners,
    end: Corners,
    mirror: np.int32,
    cubic: bool | None,
    scale: Float32Array,
    bias: Float32Array,
    out: Float32Array,
) -> None:
    """As `resample`, into `out` float32 (3, rows, columns), contiguous: pixel * scale[channel] + bias[channel]."""
    _check(region, start, end)
    _, height, width = out.shape
    flat = out.reshape(out.size)
    if cubic is not None:
        above, weights, bits, across = _cubic(region, start, end, mirror, (height, width))
        line, planes = np.empty(3 * width, np.uint8), np.empty(3 * width, np.uint8)
        for y in range(height):
            bicubic.sum_rows(across, above[y] - above[0], weights, y, bits, line, 0, 3 * width)
            deinterleave(line, 0, width, planes)
            for channel in range(3):
                to = (channel * height + y) * width
                scale_values(planes, channel * width, width, scale[channel], bias[channel], flat, to)
        return
    above, down, rows, at, across, columns, rounding = _linear(region, start, end, mirror, (height, width))
    sums, lines = bilinear.room(region, width)
    for y in range(0, height, bilinear.ROWS):
        bilinear.sum_rows(region, above, down, rows, y, sums)
        bilinear.sum_columns(sums, at, across, columns, rounding, lines, width, True)
        pixels = min(bilinear.ROWS, height - y) * width
        for channel in range(3):
            first, to = channel * bilinear.ROWS * width, (channel * height + y) * width
            scale_values(lines, first, pixels, scale[channel], bias[channel], flat, to)


@numba.njit(nogil=True, cache=True)
def deinterleave(pixels, first, width, planes):  # type: ignore[no-untyped-def]
    """Copies `width` pixels from the bytes `pixels[first:]` to `planes`: all reds, all greens, all blues."""
    start, green, blue = np.uint64(first), np.uint64(width), np.uint64(2 * width)
    one, two, three = np.uint64(1), np.uint64(2), np.uint64(3)
    for x in range(np.uint64(width)):
        source = start + three * x
        planes[x] = pixels[source]
        planes[green + x] = pixels[source + one]
        planes[blue + x] = pixels[source + two]


@numba.njit(nogil=True, cache=True)
def scale_values(planes, first, width, scale, bias, out, to):  # type: ignore[no-untyped-def]
    """Of `width` bytes `planes[first:]`, each times `scale` plus `bias`: `out[to:]` float32.

    Indices without sign cannot be negative and wrap around: so the compiler finds vector instructions.
    """
    start, target = np.uint64(first), np.uint64(to)
    for x in range(np.uint64(width)):
        out[target + x] = np.float32(planes[start + x]) * scale + bias


@numba.njit(nogil=True, cache=True)
def _check(region, start, end):  # type: ignore[no-untyped-def]
    if region.strides[1] != 3 or region.strides[2] != 1:
        raise ValueError("the pixels of a row to resize do not lie side by side")
    for axis in range(2):
        if not 0.0 <= start[axis] < end[axis] <= region.shape[axis]:
            raise ValueError("the window to resize is empty or not inside the region")


@numba.njit(nogil=True, cache=True)
def _cubic(region, start, end, mirror, size):  # type: ignore[no-untyped-def]
    """For each output row the first stored row, the weights and their bits; and the stored rows, resized across.

    Row 0 of those is the first one of output row 0.
    """
    rows, columns = (np.float64(start[0]), np.float64(end[0])), (np.float64(start[1]), np.float64(end[1]))
    above, weights, bits = bicubic.cubic_weights(*rows, region.shape[0], size[0], np.int32(0))
    left, across, precision = bicubic.cubic_weights(*columns, region.shape[1], size[1], mirror)
    last = min(above[size[0] - 1] + weights.shape[1], region.shape[0])
    return above, weights, bits, bicubic.sum_columns(region, above[0], last, left, across, precision)


@numba.njit(nogil=True, cache=True)
def _linear(region, start, end, mirror, size):  # type: ignore[no-untyped-def]
    """For rows and for columns the first stored one of each output, factors, and how many taps; and the rounding."""
    above, down = bilinear.linear_weights(np.float64(start[0]), np.float64(end[0]), region.shape[0], size[0])
    left, across = bilinear.linear_weights(np.float64(start[1]), np.float64(end[1]), region.shape[1], size[1])
    rows, columns = len(down), len(across)
    # Half of one step of the result, and what is lost before: half a unit a product in the mean, and one unit of
    # 256 a direction, because the weights add up to 65,535 and not to 65,536. More than 255 could overflow.
    rounding = np.uint16(min(128 + 1 + (rows + columns) // 2, 255))
    for_rows, for_columns = bilinear.for_rows(above, down), bilinear.for_columns(left, across, mirror)
    return *for_rows, rows, *for_columns, columns, rounding
