"""Finishing on a CPU: resizes regions of any size, flips and normalises.

DALI's decoder is fast on a CPU, its pixel operators are not (docs/decisions.md has the figures). So there the graph
ends with uint8 pixels, and threads do the rest, each for a part of the batch: resize (shards/decode/resample.py), flip
and normalisation in one pass, compiled by numba and run without the interpreter's lock.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import numpy.typing as npt

from shards.decode import MEAN, STD, Channels
from shards.decode.buffers import Buffers
from shards.decode.resample import resample, resample_normalise
from shards.sampling.crops import Corners, Interpolation

Int32Array = npt.NDArray[np.int32]
UInt8Array = npt.NDArray[np.uint8]
Float32Array = npt.NDArray[np.float32]
Pixels = UInt8Array | Float32Array
# Start and end of n windows, (n, 2) each: (row, column) in pixels of their regions, also between pixels.
Cut = tuple[Corners, Corners]


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


# The loops are written so that the compiler finds vector instructions for them, which makes the pass
# five times as fast: each works on contiguous one-dimensional arrays, in a function of its own, and
# the reversed one counts in unsigned integers, whose indices cannot be negative and wrap around.


@numba.njit(nogil=True, cache=True)
def _normalise(
    images: UInt8Array, mirror: Int32Array, scale: Float32Array, bias: Float32Array, out: Float32Array
) -> None:
    for i in range(len(images)):
        cut_normalise(images[i], 0, mirror[i], scale, bias, out[i])


@numba.njit(nogil=True, cache=True)
def cut_normalise(
    rows: UInt8Array, left: int, mirror: int | np.int32, scale: Float32Array, bias: Float32Array, out: Float32Array
) -> None:
    """As `cut_out`, and pixel * scale[channel] + bias[channel], in one pass: `out` float32 (3, height, width)."""
    _, height, width = out.shape
    planes = np.empty((3, width), np.uint8)
    for y in range(height):
        row = rows[y].reshape(3 * rows.shape[1])[3 * left : 3 * (left + width)]
        _deinterleave(row, planes[0], planes[1], planes[2])
        for c in range(3):
            if mirror:
                _scale_reversed(planes[c], scale[c], bias[c], out[c, y])
            else:
                _scale(planes[c], scale[c], bias[c], out[c, y])


@numba.njit(nogil=True, cache=True)
def cut_out(rows: UInt8Array, left: int, mirror: int | np.int32, out: UInt8Array) -> None:
    """Columns from `left` on of rows of pixels (height, any, 3), mirrored if `mirror`: `out` (height, width, 3)."""
    height, width, _ = out.shape
    planes = np.empty((3, width), np.uint8)
    for y in range(height):
        row = rows[y].reshape(3 * rows.shape[1])[3 * left : 3 * (left + width)]
        target = out[y].reshape(3 * width)
        if mirror:
            _deinterleave(row, planes[0], planes[1], planes[2])
            _interleave_reversed(planes[0], planes[1], planes[2], target)
        else:
            _copy(row, target)


@numba.njit(nogil=True, cache=True)
def _deinterleave(row: UInt8Array, red: UInt8Array, green: UInt8Array, blue: UInt8Array) -> None:
    for x in range(red.size):
        red[x] = row[3 * x]
        green[x] = row[3 * x + 1]
        blue[x] = row[3 * x + 2]


@numba.njit(nogil=True, cache=True)
def _copy(row: UInt8Array, out: UInt8Array) -> None:
    # `out[:] = row` takes four times as long in numba, because it is no loop of vectors there.
    for x in range(out.size):
        out[x] = row[x]


@numba.njit(nogil=True, cache=True)
def _scale(plane: UInt8Array, scale: np.float32, bias: np.float32, out: Float32Array) -> None:
    for x in range(out.size):
        out[x] = np.float32(plane[x]) * scale + bias


@numba.njit(nogil=True, cache=True)
def _scale_reversed(plane: UInt8Array, scale: np.float32, bias: np.float32, out: Float32Array) -> None:
    last = np.uint64(out.size - 1)
    for x in range(np.uint64(out.size)):
        out[x] = np.float32(plane[last - x]) * scale + bias


@numba.njit(nogil=True, cache=True)
def _shift(images: Pixels, shift: Int32Array, black: Pixels) -> None:
    """Moves the values of `images` (n, planes, height, width) in place; `black` (planes,) is what comes in."""
    count, planes, height, width = images.shape
    line = np.empty(width, images.dtype)
    for i in range(count):
        down, right = shift[i]
        if down == 0 and right == 0:
            continue
        first, last = max(right, 0), min(width + right, width)  # the columns that get values of the image
        for c in range(planes):
            for step in range(height):
                y = height - 1 - step if down > 0 else step  # each line is read before another is written over it
                out = images[i, c, y]
                if 0 <= y - down < height:
                    _copy(images[i, c, y - down][first - right : last - right], line[first:last])
                    _copy(line[first:last], out[first:last])
                    out[:first] = black[c]
                    out[last:] = black[c]
                else:
                    out[:] = black[c]


@numba.njit(nogil=True, cache=True)
def _flip(images: UInt8Array, mirror: Int32Array) -> None:
    count, height, width, _ = images.shape
    planes = np.empty((3, width), np.uint8)
    for i in range(count):
        if mirror[i]:
            for y in range(height):
                row = images[i, y].reshape(3 * width)
                _deinterleave(row, planes[0], planes[1], planes[2])
                _interleave_reversed(planes[0], planes[1], planes[2], row)


@numba.njit(nogil=True, cache=True)
def _interleave_reversed(red: UInt8Array, green: UInt8Array, blue: UInt8Array, row: UInt8Array) -> None:
    last, one, two, three = np.uint64(red.size - 1), np.uint64(1), np.uint64(2), np.uint64(3)
    for x in range(np.uint64(red.size)):
        row[three * x] = red[last - x]
        row[three * x + one] = green[last - x]
        row[three * x + two] = blue[last - x]
