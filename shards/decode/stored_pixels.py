"""Stored pixels on a CPU: the thread that read a sample finishes it, while its rows are in that core's cache.

There is nothing to decode, so `StoredPixels` stands where the DALI graph stands for JPEGs. Reading a whole batch first
and cutting its crop windows afterwards takes a third to half longer (docs/decisions.md has the figures): the rows of a
batch are more than a cache holds, so they would go to main memory and come back.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from shards.decode.buffers import Buffers
from shards.decode.finish import BIAS, SCALE, cut_normalise, cut_out
from shards.decode.graph import GraphConfig
from shards.decode.resample import resample, resample_normalise
from shards.sampling.batch import PlannedBatch
from shards.sampling.policies import Policy

UInt8Array = npt.NDArray[np.uint8]


class StoredPixels:
    """Makes batches of crop windows: resized where need be, mirrored, and normalised for float32.

    `resizes`: whether crop windows are of other sizes than the output. `augment`: a policy comes between this and the
    mirror, so the images stay uint8 and are not mirrored here.
    """

    def __init__(self, config: GraphConfig, resizes: bool, augment: Policy | None) -> None:
        self.config = config
        self._dtype = "uint8" if config.dtype == "uint8" or augment is not None else "float32"
        self._resizes = resizes
        self._mirrors = augment is None
        self._buffers = Buffers()
        self._inside: deque[npt.NDArray[Any]] = deque()

    def images(self, batch: PlannedBatch) -> npt.NDArray[Any]:
        """Room for the batch: float32 (n, 3, size, size), or uint8 (n, size, size, 3).

        Its memory is used again once nothing refers to it.
        """
        count, size = len(batch), batch.size
        shape = (count, size, size, 3) if self._dtype == "uint8" else (count, 3, size, size)
        return self._buffers.take(shape, np.dtype(self._dtype))

    def on_sample(
        self, batch: PlannedBatch, images: npt.NDArray[Any], places: Sequence[int]
    ) -> Callable[[int, UInt8Array], None]:
        """What the reading threads call: makes of sample i of `batch` the image `places[i]` of `images`."""
        windows, rows = batch.windows, batch.rows
        assert rows is not None
        left, width = windows.anchor[:, 1].tolist(), windows.shape[:, 1].tolist()
        mirror = windows.mirror if self._mirrors else np.zeros_like(windows.mirror)
        # Looked up once a batch: what runs for each sample holds the interpreter's lock.
        rows_of, resizes, cut = rows.of, self._resizes, self._cut

        def finish(i: int, sample: UInt8Array) -> None:
            pixels, out = rows_of(sample, i), images[places[i]]
            if resizes:
                # The region alone: the filter must not see what lies beside it, as where nothing else was decoded.
                region = np.ascontiguousarray(pixels[:, left[i] : left[i] + width[i]])
                self._resize(region, windows.start[i], windows.end[i], mirror[i], out)
            else:
                cut(pixels, left[i], mirror[i], out)

        return finish

    def push(self, batch: PlannedBatch, images: npt.NDArray[Any]) -> None:
        """Takes a batch that the reading threads have finished."""
        self._inside.append(images)

    def pop(self) -> npt.NDArray[Any]:
        """The oldest batch that was pushed."""
        return self._inside.popleft()

    def restart(self) -> None:
        """Drops the batches that were pushed."""
        self._inside.clear()

    def close(self) -> None:
        """Drops the batches that were pushed."""
        self._inside.clear()

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
