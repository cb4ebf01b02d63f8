"""What follows the decode on a CPU: resize regions of any size, flip and normalise.

DALI's decoder is fast on a CPU, its pixel operators are not (docs/architecture.md has the figures),
so there the graph ends with uint8 pixels and this module does the rest, the images of a batch divided
over threads: flip and normalisation in one pass, compiled by numba and run without the interpreter
lock; a resize by torch's antialiased kernel for uint8, which is torchvision's.
"""

import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import numpy.typing as npt
import torch

from shards.pixels import MEAN, STD

UInt8Array = npt.NDArray[np.uint8]
Float32Array = npt.NDArray[np.float32]

_SCALE = (1.0 / (255.0 * np.array(STD))).astype(np.float32)
_BIAS = (-np.array(MEAN) / np.array(STD)).astype(np.float32)


class Finisher:
    """Turns decoded batches into what the model reads, on `threads` threads.

    Output buffers are used again once no tensor refers to them: a fresh 38 MB batch costs thousands
    of page faults, which is as long as filling it.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="shardfeed-finish")
        self._free: list[Float32Array] = []

    def flip(self, images: UInt8Array, mirror: npt.NDArray[np.int32]) -> None:
        """Mirrors in place those of `images` (n, height, width, 3) whose `mirror` (n,) is not 0."""
        self._each(len(images), lambda first, last: _flip(images[first:last], mirror[first:last]))

    def normalise(self, images: UInt8Array, mirror: npt.NDArray[np.int32]) -> Float32Array:
        """Mirrored and normalised copies of `images` (n, height, width, 3): float32 (n, 3, height, width), contiguous.

        (pixel / 255 - MEAN) / STD for each channel. The array's memory is used again when the last
        reference to it is gone.
        """
        out = self._buffer((len(images), 3, *images.shape[1:3]))
        self._each(
            len(images),
            lambda first, last: _normalise(images[first:last], mirror[first:last], _SCALE, _BIAS, out[first:last]),
        )
        return out

    def resize(self, regions: Sequence[UInt8Array], size: int, mirror: npt.NDArray[np.int32]) -> UInt8Array:
        """Regions (height, width, 3) of any size, antialiased bilinear to `size`, mirrored: (n, size, size, 3)."""
        out = np.empty((len(regions), size, size, 3), np.uint8)

        def work(first: int, last: int) -> None:
            for i in range(first, last):
                out[i] = _resized(regions[i], size)
            _flip(out[first:last], mirror[first:last])

        self._each(len(regions), work)
        return out

    def resize_normalise(self, regions: Sequence[UInt8Array], size: int, mirror: npt.NDArray[np.int32]) -> Float32Array:
        """As `resize`, then as `normalise`, without a batch of uint8 in between: float32 (n, 3, size, size)."""
        out = self._buffer((len(regions), 3, size, size))

        def work(first: int, last: int) -> None:
            for i in range(first, last):
                pixels = _resized(regions[i], size)[None]
                _normalise(pixels, mirror[i : i + 1], _SCALE, _BIAS, out[i : i + 1])

        self._each(len(regions), work)
        return out

    def close(self) -> None:
        """Ends the threads."""
        self._executor.shutdown()

    def _buffer(self, shape: tuple[int, ...]) -> Float32Array:
        size = int(np.prod(shape))
        flat = self._free.pop() if self._free else np.empty(size, np.float32)
        if flat.size < size:
            flat = np.empty(size, np.float32)
        view = flat[:size].reshape(shape)
        # `torch.from_numpy(view)` keeps `view` alive for as long as any tensor shares its memory.
        weakref.finalize(view, self._free.append, flat).atexit = False
        return view

    def _each(self, count: int, work: Callable[[int, int], None]) -> None:
        """Calls `work(first, last)` for as many slices of range(count) as there are threads, side by side."""
        if self._threads == 1:
            work(0, count)
            return
        bounds = [count * part // self._threads for part in range(self._threads + 1)]
        list(self._executor.map(work, bounds[:-1], bounds[1:]))


def _resized(region: UInt8Array, size: int) -> UInt8Array:
    # The strides must say "channels last" beyond doubt, a batch of one included, for torch to take its fast path.
    image = torch.from_numpy(region)[None].permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(image, (size, size), mode="bilinear", antialias=True)
    return np.asarray(resized.permute(0, 2, 3, 1)[0].numpy())


# The loops are written so that the compiler finds vector instructions for them, which makes the pass
# five times as fast: each works on contiguous one-dimensional arrays, in a function of its own, and
# the reversed one counts in unsigned integers, whose indices cannot be negative and wrap around.


@numba.njit(nogil=True, cache=True)
def _normalise(
    images: UInt8Array, mirror: npt.NDArray[np.int32], scale: Float32Array, bias: Float32Array, out: Float32Array
) -> None:
    count, height, width, _ = images.shape
    planes = np.empty((3, width), np.uint8)
    for i in range(count):
        for y in range(height):
            _deinterleave(images[i, y].reshape(3 * width), planes[0], planes[1], planes[2])
            for c in range(3):
                if mirror[i]:
                    _scale_reversed(planes[c], scale[c], bias[c], out[i, c, y])
                else:
                    _scale(planes[c], scale[c], bias[c], out[i, c, y])


@numba.njit(nogil=True, cache=True)
def _deinterleave(row: UInt8Array, red: UInt8Array, green: UInt8Array, blue: UInt8Array) -> None:
    for x in range(red.size):
        red[x] = row[3 * x]
        green[x] = row[3 * x + 1]
        blue[x] = row[3 * x + 2]


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
def _flip(images: UInt8Array, mirror: npt.NDArray[np.int32]) -> None:
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
