"""Stored pixels on a CPU: each sample is finished by the thread that read it, while its rows are in that core's cache.

Reading a batch first and cutting its windows afterwards takes a third to half longer (docs/architecture.md has the
figures): the rows of a batch are more than a cache holds, so they would go to main memory and come back.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from shards.decode.buffers import Buffers
from shards.decode.finish import BIAS, SCALE, cut_normalise, cut_out
from shards.decode.resample import resample, resample_normalise
from shards.feed.read import Use
from shards.sampling.crops import Windows

UInt8Array = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Rows:
    """Where the rows of n windows lie in the bytes of their samples, in Python integers (see `Places`)."""

    first: list[int]
    """The byte at which the first of them begins."""
    height: list[int]
    width: list[int]
    """Pixels of a whole row, of which the window is a part."""


def window(data: UInt8Array, rows: Rows, i: int) -> UInt8Array:
    """The rows of the window of sample i, (height, width, 3), in its bytes."""
    height, width = rows.height[i], rows.width[i]
    first = rows.first[i]
    return data[first : first + 3 * height * width].reshape(height, width, 3)


class Cutter:
    """Makes batches of windows: resized where need be, mirrored, and normalised for float32.

    `dtype`: of the batches. `resizes`: whether windows are of other sizes than the images; may be changed between
    batches. `mirrors`: without it the images stay as they are.
    """

    def __init__(self, dtype: Literal["float32", "uint8"], resizes: bool, mirrors: bool) -> None:
        self.resizes = resizes
        self._dtype = dtype
        self._mirrors = mirrors
        self._buffers = Buffers()

    def take(self, count: int, size: int) -> npt.NDArray[Any]:
        """Room for a batch: float32 (count, 3, size, size), or uint8 (count, size, size, 3).

        Its memory is used again once nothing refers to it.
        """
        shape = (count, size, size, 3) if self._dtype == "uint8" else (count, 3, size, size)
        return self._buffers.take(shape, np.dtype(self._dtype))

    def into(self, images: npt.NDArray[Any], positions: Sequence[int], rows: Rows, cut: Windows) -> Use:
        """What makes images of the bytes of samples: of sample i, image `positions[i]` of what `take` gave."""
        left, width = cut.anchor[:, 1].tolist(), cut.shape[:, 1].tolist()
        mirror = cut.mirror if self._mirrors else np.zeros_like(cut.mirror)
        resizes = self.resizes

        def use(i: int, data: UInt8Array) -> None:
            pixels, out = window(data, rows, i), images[positions[i]]
            if resizes:
                # The region alone: what lies beside it must not be seen, as where nothing else was decoded.
                region = np.ascontiguousarray(pixels[:, left[i] : left[i] + width[i]])
                self._resize(region, cut.start[i], cut.end[i], mirror[i], out)
            else:
                self._cut(pixels, left[i], mirror[i], out)

        return use

    def _cut(self, rows: UInt8Array, left: int, mirror: np.int32, out: npt.NDArray[Any]) -> None:
        if self._dtype == "uint8":
            cut_out(rows, left, mirror, out)
        else:
            cut_normalise(rows, left, mirror, SCALE, BIAS, out)

    def _resize(self, region: UInt8Array, start: Any, end: Any, mirror: np.int32, out: npt.NDArray[Any]) -> None:
        if self._dtype == "uint8":
            resample(region, start, end, mirror, out)
        else:
            resample_normalise(region, start, end, mirror, SCALE, BIAS, out)
