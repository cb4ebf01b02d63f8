"""Finishing on a CPU: resizes regions of any size, flips and normalises.

DALI's decoder is fast on a CPU, its pixel operators are not (docs/decisions.md has the figures). So there the graph
ends with uint8 pixels, and threads do the rest, each for a part of the batch: resize (shards/decode/resample.py), flip
and normalisation in one pass, compiled by numba and run without the interpreter's lock.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from numba import types

from shards.decode import MEAN, STD, Channels
from shards.decode.buffers import Buffers
from shards.decode.resample import deinterleave, resample, resample_normalise, scale_values
from shards.sampling.crops import Corners, CropWindows, Interpolation

Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]
UInt8Array = npt.NDArray[np.uint8]
Float32Array = npt.NDArray[np.float32]
Pixels = UInt8Array | Float32Array
# Start and end of n windows, (n, 2) each: (row, column) in pixels of their regions, also between pixels.
Cut = tuple[Corners, Corners]


@dataclass(frozen=True)
class WholeImages:
    """n JPEGs that were decoded whole, and where their regions lie in them.

    DALI's decoder of regions takes a quarter longer than its decoder of images where these are small
    (docs/decisions.md has the figures). The pixels of a region are the same.
    """

    pixels: UInt8Array
    """(bytes,): all images, one after another."""
    first: Int64Array
    """(n,): the byte at which the first row of each region begins."""
    width: Int64Array
    """(n,): pixels of a whole row, of which the region is a part."""
    left: Int64Array
    """(n,): the first column of the region."""
    shape: Int64Array
    """(n, 2): height and width of the region."""

    @staticmethod
    def of(decoded: Any, windows: CropWindows) -> "WholeImages":
        """The regions of these windows in `decoded`, a TensorList of DALI's: its memory, not a copy.

        Raises RuntimeError, as DALI does, for an image that its region does not lie in.
        """
        stored = np.array(decoded.shape(), np.int64)
        size = stored.prod(axis=1)
        if (windows.anchor + windows.shape > stored[:, :2]).any():
            raise RuntimeError("encountered: the image is smaller than the index says")  # in the form of DALI's errors
        return WholeImages(
            pixels=np.asarray(decoded.as_reshaped_tensor([int(size.sum())])),
            first=np.cumsum(size) - size + 3 * stored[:, 1] * windows.anchor[:, 0],
            width=stored[:, 1],
            left=windows.anchor[:, 1].astype(np.int64),
            shape=windows.shape.astype(np.int64),
        )

    def regions(self) -> list[UInt8Array]:
        """Each region (height, width, 3), columns of a wider image: views."""
        numbers = (self.first.tolist(), self.width.tolist(), self.left.tolist(), *self.shape.T.tolist())
        return [
            self.pixels[first : first + 3 * high * stored].reshape(high, stored, 3)[:, left : left + wide]
            for first, stored, left, high, wide in zip(*numbers, strict=True)
        ]


def scale_and_bias(mean: Channels, std: Channels) -> tuple[Float32Array, Float32Array]:
    """What pixels are multiplied by and what is added then, for each channel (3,): (pixel / 255 - mean) / std."""
    return (1.0 / (255.0 * np.array(std))).astype(np.float32), (-np.array(mean) / np.array(std)).astype(np.float32)


# Slices of a batch for each thread where a sample takes long and some longer, so that the threads end together.
PIECES = 4


class Finisher:
    """Resizes, flips and normalises decoded batches on `threads` threads.

    Results lie in memory that is used again once no tensor refers to it (shards/decode/buffers.py).
    """

    def __init__(
        self, threads: int, interpolation: Interpolation = "bilinear", mean: Channels = MEAN, std: Channels = STD
    ) -> None:
        self._threads = threads
        self._cubic = True if interpolation == "bicubic" else None
        self._scale, self._bias = scale_and_bias(mean, std)
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="shardfeed-finish")
        self._buffers = Buffers()

    def flip(self, images: UInt8Array, mirror: Int32Array) -> None:
        """Mirrors in place those of `images` (n, height, width, 3) whose `mirror` (n,) is not 0."""
        self.each(len(images), lambda first, last: _flip(images[first:last], mirror[first:last]))

    def normalise(self, images: UInt8Array, mirror: Int32Array) -> Float32Array:
        """Mirrored and normalised copies of `images` (n, height, width, 3): float32 (n, 3, height, width), contiguous.

        (pixel / 255 - mean) / std for each channel.
        """
        out = self._buffers.take((len(images), 3, *images.shape[1:3]), np.float32)
        self.each(
            len(images),
            lambda first, last: _normalise(
                images[first:last], mirror[first:last], self._scale, self._bias, out[first:last]
            ),
        )
        return out

    def cut(self, images: WholeImages, size: int, mirror: Int32Array) -> UInt8Array:
        """Regions of `size` pixels, mirrored: uint8 (n, size, size, 3)."""
        out = self._buffers.take((len(mirror), size, size, 3), np.uint8)
        self._cut(images, mirror, None, out)
        return out

    def cut_normalise(self, images: WholeImages, size: int, mirror: Int32Array) -> Float32Array:
        """As `cut`, then as `normalise`: float32 (n, 3, size, size), contiguous."""
        out = self._buffers.take((len(mirror), 3, size, size), np.float32)
        self._cut(images, mirror, (self._scale, self._bias), out)
        return out

    def _cut(self, images: WholeImages, mirror: Int32Array, normalise: Any, out: Pixels) -> None:
        where = images.pixels, images.first, images.width, images.left
        self.each(len(mirror), lambda begin, end: _cut(begin, end, *where, mirror, normalise, out))

    def shift(self, images: Pixels, shift: Int32Array) -> None:
        """Moves each image in place, by `shift` (n, 2) rows down and columns to the right; what it leaves is black.

        `images`: uint8 (n, height, width, 3), or normalised float32 (n, 3, height, width), contiguous.
        """
        lines, step, black = images, shift, self._bias
        if images.dtype == np.uint8:
            count, height, width, _ = images.shape
            lines = images.reshape(count, 1, height, 3 * width)
            step, black = shift * np.array([1, 3], np.int32), np.zeros(1, np.uint8)
        self.each(len(images), lambda first, last: _shift(lines[first:last], step[first:last], black))

    def resize(self, regions: Sequence[UInt8Array], cut: Cut, size: int, mirror: Int32Array) -> UInt8Array:
        """The window `cut` of each region (height, width, 3), antialiased, mirrored: uint8 (n, size, size, 3)."""
        out = self._buffers.take((len(regions), size, size, 3), np.uint8)

        def work(first: int, last: int) -> None:
            for i in range(first, last):
                resample(regions[i], cut[0][i], cut[1][i], mirror[i], self._cubic, out[i])

        self.each(len(regions), work)
        return out

    def resize_normalise(self, regions: Sequence[UInt8Array], cut: Cut, size: int, mirror: Int32Array) -> Float32Array:
        """As `resize`, then as `normalise`, without a batch of uint8 in between: float32 (n, 3, size, size)."""
        out = self._buffers.take((len(regions), 3, size, size), np.float32)

        def work(first: int, last: int) -> None:
            for i in range(first, last):
                resample_normalise(
                    regions[i], cut[0][i], cut[1][i], mirror[i], self._cubic, self._scale, self._bias, out[i]
                )

        self.each(len(regions), work)
        return out

    def close(self) -> None:
        """Ends the threads."""
        self._executor.shutdown()

    def each(self, count: int, work: Callable[[int, int], None], pieces: int = 1) -> None:
        """Calls `work(first, last)` for slices of range(count), side by side: for each thread so many, one by one."""
        if self._threads == 1:
            work(0, count)
            return
        parts = self._threads * pieces
        bounds = [count * part // parts for part in range(parts + 1)]
        list(self._executor.map(work, bounds[:-1], bounds[1:]))


# How the loops are written makes them several times as fast. They index whole images as one dimension: a view of a row
# costs more than copying its pixels, because numba counts the references to it, by atomic instructions. And the inner
# loops over pixels, each in a function of its own, count in unsigned integers, which cannot be negative and wrap
# around: so the compiler finds vector instructions for them.

# Of the C library. Assigning a slice takes four times as long in numba, because that is no loop of vectors.
_memmove: Any = types.ExternalFunction("memmove", types.voidptr(types.uintp, types.uintp, types.uintp))


@numba.njit(nogil=True, cache=True)
def _normalise(
    images: UInt8Array, mirror: Int32Array, scale: Float32Array, bias: Float32Array, out: Float32Array
) -> None:
    for i in range(len(images)):
        cut_normalise(images[i], 0, mirror[i], scale, bias, out[i])


@numba.njit(nogil=True, cache=True)
def _cut(begin, end, pixels, first, width, left, mirror, normalise, out):  # type: ignore[no-untyped-def]
    """Cuts out the regions `begin` to `end`. `normalise` None is not done: numba compiles a function for each case."""
    height = out.shape[1] if normalise is None else out.shape[2]
    for i in range(begin, end):
        rows = pixels[first[i] : first[i] + 3 * height * width[i]].reshape(height, width[i], 3)
        if normalise is None:
            cut_out(rows, left[i], mirror[i], out[i])
        else:
            cut_normalise(rows, left[i], mirror[i], normalise[0], normalise[1], out[i])


@numba.njit(nogil=True, cache=True)
def cut_normalise(
    rows: UInt8Array, left: int, mirror: int | np.int32, scale: Float32Array, bias: Float32Array, out: Float32Array
) -> None:
    """As `cut_out`, and pixel * scale[channel] + bias[channel], in one pass: `out` float32 (3, height, width)."""
    _, height, width = out.shape
    pixels, values, planes = rows.reshape(rows.size), out.reshape(out.size), np.empty(3 * width, np.uint8)
    for y in range(height):
        # All channels in one loop would save these planes. It takes half longer where `out` is not in the cache.
        deinterleave(pixels, 3 * (y * rows.shape[1] + left), width, planes)
        for c in range(3):
            if mirror:
                _scale_reversed(planes, c * width, width, scale[c], bias[c], values, (c * height + y) * width)
            else:
                scale_values(planes, c * width, width, scale[c], bias[c], values, (c * height + y) * width)


@numba.njit(nogil=True, cache=True)
def cut_out(rows: UInt8Array, left: int, mirror: int | np.int32, out: UInt8Array) -> None:
    """Columns from `left` on of rows of pixels (height, any, 3), mirrored if `mirror`: `out` (height, width, 3).

    Both are contiguous.
    """
    height, width, _ = out.shape
    pixels, target = rows.reshape(rows.size), out.reshape(out.size)
    for y in range(height):
        first, to = 3 * (y * rows.shape[1] + left), 3 * y * width
        if mirror:
            _reverse(pixels, first, width, target, to)
        else:
            _copy(pixels, first, target, to, 3 * width)


@numba.njit(nogil=True, cache=True)
def _copy(values, first, out, to, count):  # type: ignore[no-untyped-def]
    """Copies `count` values from `values[first:]` to `out[to:]`, which may be the same memory."""
    size = values.itemsize
    _memmove(np.uintp(out.ctypes.data + to * size), np.uintp(values.ctypes.data + first * size), np.uintp(count * size))


@numba.njit(nogil=True, cache=True)
def _reverse(pixels, first, width, out, to):  # type: ignore[no-untyped-def]
    """Copies `width` pixels, mirrored, from the bytes `pixels[first:]` to `out[to:]`, which is other memory."""
    last, start = np.uint64(first + 3 * (width - 1)), np.uint64(to)
    one, two, three = np.uint64(1), np.uint64(2), np.uint64(3)
    for x in range(np.uint64(width)):
        source, target = last - three * x, start + three * x
        out[target] = pixels[source]
        out[target + one] = pixels[source + one]
        out[target + two] = pixels[source + two]


@numba.njit(nogil=True, cache=True)
def _scale_reversed(planes, first, width, scale, bias, out, to):  # type: ignore[no-untyped-def]
    last, target = np.uint64(first + width - 1), np.uint64(to)
    for x in range(np.uint64(width)):
        out[target + x] = np.float32(planes[last - x]) * scale + bias


@numba.njit(nogil=True, cache=True)
def _shift(images: Pixels, shift: Int32Array, black: Pixels) -> None:
    """Moves the values of `images` (n, planes, height, width) in place; `black` (planes,) is what comes in."""
    count, planes, height, width = images.shape
    values = images.reshape(images.size)
    for i in range(count):
        down, right = np.int64(shift[i, 0]), np.int64(shift[i, 1])
        if down == 0 and right == 0:
            continue
        first, last = max(right, 0), min(width + right, width)  # the columns that get values of the image
        for c in range(planes):
            for step in range(height):
                y = height - 1 - step if down > 0 else step  # each line is read before another is written over it
                line = ((i * planes + c) * height + y) * width
                if 0 <= y - down < height:
                    _copy(values, line - down * width + first - right, values, line + first, last - first)
                    _fill(values, line, line + first, black[c])
                    _fill(values, line + last, line + width, black[c])
                else:
                    _fill(values, line, line + width, black[c])


@numba.njit(nogil=True, cache=True)
def _fill(values, first, last, value):  # type: ignore[no-untyped-def]
    for x in range(np.uint64(first), np.uint64(last)):
        values[x] = value


@numba.njit(nogil=True, cache=True)
def _flip(images: UInt8Array, mirror: Int32Array) -> None:
    count, height, width, _ = images.shape
    pixels, row = images.reshape(images.size), np.empty(3 * width, np.uint8)
    for i in range(count):
        if mirror[i]:
            for y in range(height):
                first = 3 * (i * height + y) * width
                _copy(pixels, first, row, 0, 3 * width)
                _reverse(row, 0, width, pixels, first)
