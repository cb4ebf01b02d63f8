"""Antialiased bilinear resize of 8-bit RGB: Pillow's and torchvision's filter, in integers, compiled by numba.

The pixels differ from those of Pillow's BILINEAR by at most 1 of 255. They are the same on every processor, because
only fixed-point sums are rounded. It needs no torch, whose import costs a worker seconds and half a gigabyte. Both
directions are the same pass, weighted sums of whole rows, which compilers turn into vector instructions; the image is
transposed after each pass.
"""

import functools

import numba
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Wide = npt.NDArray[np.int16]
Sums = npt.NDArray[np.int32]

# Weights add up to 2^14, so that they fit into 16 bits, and the sums into 32. Between the passes values keep 7 bits of
# fraction: 255 * 2^7 is the most that 16 bits hold.
WEIGHT_BITS = 14
FRACTION_BITS = 7
_FIRST_SHIFT = WEIGHT_BITS - FRACTION_BITS
_SECOND_SHIFT = WEIGHT_BITS + FRACTION_BITS
# Rows of the result made at a time, so that the values between the passes stay in the processor's cache.
_BAND = 32


def resize(pixels: Pixels, width: int, height: int) -> Pixels:
    """A copy of `pixels` (rows, columns, 3) with the shape (height, width, 3)."""
    rows, columns, channels = pixels.shape
    out = np.empty((height, width, channels), np.uint8)
    _resize(
        np.ascontiguousarray(pixels).reshape(rows, columns * channels),
        channels,
        *weights(rows, height),
        *weights(columns, width),
        out.reshape(height, width * channels),
    )
    return out


@functools.lru_cache(maxsize=4096)
def weights(size: int, new_size: int) -> tuple[npt.NDArray[np.int64], Wide]:
    """For each of `new_size` pixels the first source pixel, (new_size,), and the weights, (new_size, taps).

    The filter is a triangle as wide as two new pixels, or as two source pixels where the image grows, as in Pillow's
    `precompute_coeffs`. Each row of weights adds up to exactly 2^14.
    """
    scale = size / new_size
    support = max(scale, 1.0)
    centres = (np.arange(new_size) + 0.5) * scale
    first = np.maximum(0, (centres - support + 0.5).astype(np.int64))
    last = np.minimum(size, (centres + support + 0.5).astype(np.int64))
    taps = int((last - first).max())
    # All pixels get the same number of taps, and none reaches beyond the end of the source.
    first = np.minimum(first, size - taps)
    positions = first[:, None] + np.arange(taps)
    exact = np.maximum(0.0, 1.0 - np.abs(positions + 0.5 - centres[:, None]) / support)
    exact[positions >= last[:, None]] = 0.0
    exact /= exact.sum(axis=1, keepdims=True)
    # The running sums are rounded, not each weight, so that the total is exact and small weights are unbiased.
    whole = np.diff(np.rint(np.cumsum(exact, axis=1) * 2**WEIGHT_BITS), axis=1, prepend=0.0)
    return first, whole.astype(np.int16)


# As in shards/decode/finish.py: small functions over contiguous one-dimensional arrays get vector instructions.


@numba.njit(nogil=True, cache=True)
def _resize(
    source: Pixels,
    channels: int,
    first_row: npt.NDArray[np.int64],
    row_weights: Wide,
    first_column: npt.NDArray[np.int64],
    column_weights: Wide,
    out: Pixels,
) -> None:
    height, width, line = first_row.size, first_column.size, source.shape[1]
    sums = np.empty(max(line, channels * _BAND), np.int32)
    upright = np.empty((_BAND, line), np.int16)
    # One row for each source column, with the channels of its pixels: first all reds, then all greens, then all blues.
    turned = np.empty((line, _BAND), np.int16)
    columns = turned.reshape(line // channels, channels * _BAND)
    resized = np.empty((width * channels, _BAND), np.uint8)
    wide = resized.reshape(width, channels * _BAND)
    for top in range(0, height, _BAND):
        bottom = min(top + _BAND, height)
        for y in range(top, bottom):
            _weigh(source, first_row[y], row_weights[y], sums[:line], 1 << (_FIRST_SHIFT - 1))
            _narrow_16(sums[:line], upright[y - top])
        _transpose_16(upright, turned)
        for x in range(width):
            _weigh(columns, first_column[x], column_weights[x], sums[: channels * _BAND], 1 << (_SECOND_SHIFT - 1))
            _narrow_8(sums[: channels * _BAND], wide[x])
        _transpose_8(resized, out[top:bottom])


@numba.njit(nogil=True, cache=True)
def _weigh(source, first, weight, sums, rounding):  # type: ignore[no-untyped-def]
    _start(source[first], weight[0], sums, rounding)
    for tap in range(1, weight.size):
        _add(source[first + tap], weight[tap], sums)


@numba.njit(nogil=True, cache=True)
def _start(row, weight, sums, rounding):  # type: ignore[no-untyped-def]
    for x in range(sums.size):
        sums[x] = np.int32(row[x]) * np.int32(weight) + np.int32(rounding)


@numba.njit(nogil=True, cache=True)
def _add(row, weight, sums):  # type: ignore[no-untyped-def]
    for x in range(sums.size):
        sums[x] += np.int32(row[x]) * np.int32(weight)


@numba.njit(nogil=True, cache=True)
def _narrow_16(sums: Sums, out: Wide) -> None:
    for x in range(out.size):
        out[x] = np.int16(sums[x] >> np.int32(_FIRST_SHIFT))


@numba.njit(nogil=True, cache=True)
def _narrow_8(sums: Sums, out: Pixels) -> None:
    for x in range(out.size):
        out[x] = np.uint8(sums[x] >> np.int32(_SECOND_SHIFT))


@numba.njit(nogil=True, cache=True)
def _transpose_16(source: Wide, out: Wide) -> None:
    for x in range(out.shape[0]):
        for y in range(_BAND):
            out[x, y] = source[y, x]


@numba.njit(nogil=True, cache=True)
def _transpose_8(source: Pixels, out: Pixels) -> None:
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            out[y, x] = source[x, y]
