"""The windows of RandomResizedCrop, drawn in one compiled loop.

numpy takes a dozen passes over the samples for each of the ten attempts, and nearly every batch has a sample that needs
many: over a millisecond for 64 samples, of the one thread that plans (docs/decisions.md).
"""

import math

import numba
import numpy as np
import numpy.typing as npt

from shards.sampling.hashing import word

Int64Array = npt.NDArray[np.int64]
Float64Array = npt.NDArray[np.float64]
UInt64Array = npt.NDArray[np.uint64]

_word = numba.njit(nogil=True, cache=True)(word)


@numba.njit(nogil=True, cache=True)
def draw_windows(
    ids: Int64Array,
    tall: Int64Array,
    wide: Int64Array,
    scales: Float64Array,
    ratios: Float64Array,
    logarithms: Float64Array,
    attempts: UInt64Array,
    corners: UInt64Array,
) -> Int64Array:
    """The windows (n, 4) of the samples `ids` (n,) in images of `tall` by `wide` (n,) pixels: see `random_resized`.

    scales, ratios, logarithms: from and to, (n, 2); the last are those of the ratios.
    attempts: keys (attempts, 2, 2) of the area and the ratio. corners: keys (2, 2) of the row and the column.
    """
    windows = np.empty((ids.size, 4), np.int64)
    for i in range(ids.size):
        found, counter = False, np.uint64(ids[i])
        for keys in range(len(attempts)):
            area = (tall[i] * wide[i]) * _between(scales, i, _uniform(counter, attempts[keys, 0]))
            ratio = math.exp(_between(logarithms, i, _uniform(counter, attempts[keys, 1])))
            rows, columns = np.rint(math.sqrt(area / ratio)), np.rint(math.sqrt(area * ratio))
            if 0 < rows <= tall[i] and 0 < columns <= wide[i]:
                found = True
                break
        if found:
            height, width = np.int64(rows), np.int64(columns)
            windows[i, 0] = _below(counter, corners[0], tall[i] - height + 1)
            windows[i, 1] = _below(counter, corners[1], wide[i] - width + 1)
        else:
            height, width = _largest(tall[i], wide[i], ratios[i, 0], ratios[i, 1])
            windows[i, 0], windows[i, 1] = (tall[i] - height) // 2, (wide[i] - width) // 2
        windows[i, 2], windows[i, 3] = height, width
    return windows


@numba.njit(nogil=True, cache=True)
def _largest(tall, wide, narrowest, widest):  # type: ignore[no-untyped-def]
    """Height and width of the largest window of an allowed ratio, a pixel at least (torchvision: none)."""
    height, width = tall, wide
    if wide / tall < narrowest:
        height = max(np.int64(1), np.int64(np.rint(wide / narrowest)))
    if wide / tall > widest:
        width = max(np.int64(1), np.int64(np.rint(tall * widest)))
    return height, width


@numba.njit(nogil=True, cache=True)
def _between(bounds, i, share):  # type: ignore[no-untyped-def]
    return bounds[i, 0] + (bounds[i, 1] - bounds[i, 0]) * share


# As `uniform` and `integers` of shards/sampling/hashing.py.


@numba.njit(nogil=True, cache=True)
def _uniform(counter, keys):  # type: ignore[no-untyped-def]
    return np.float64(_word(counter, keys[0], keys[1]) >> np.uint64(11)) * 2.0**-53


@numba.njit(nogil=True, cache=True)
def _below(counter, keys, bound):  # type: ignore[no-untyped-def]
    high = _word(counter, keys[0], keys[1]) >> np.uint64(32)
    return np.int64((high * np.uint64(bound)) >> np.uint64(32))
