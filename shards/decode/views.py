"""Several views of each sample on a CPU: cut, resized, mirrored and recoloured from one decoded region.

A thread makes all views of a sample in one compiled call, while the region is in its core's cache.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import torch

from shards.decode.buffers import Buffers
from shards.decode.colour import change_colour
from shards.decode.finish import PIECES, Finisher, cut_normalise, scale_and_bias
from shards.decode.graph import GraphConfig
from shards.decode.resample import resample
from shards.decode.tensors import Batch, regions
from shards.sampling.batch import PlannedBatch

UInt8Array = npt.NDArray[np.uint8]


class ViewTensors:
    """Makes the views of batches, with as many threads as the graph has."""

    def __init__(self, config: GraphConfig) -> None:
        self._pixels_wanted = config.dtype == "uint8"
        self._finisher = Finisher(config.threads)
        self._normalise = scale_and_bias(config.mean, config.std)
        self._buffers = Buffers()

    def __call__(self, decoded: Any, batch: PlannedBatch) -> Batch:
        """The tensors of a batch: a list of images (n, 3, size, size), one for each view, and labels.

        `decoded`: the regions that hold the views, a TensorList of the graph's or a list of arrays (height, width, 3).
        """
        planned = batch.views
        assert planned is not None
        sizes = np.array([view.size for view in planned.views])
        counts = 3 * sizes**2 * len(batch)
        ends = np.cumsum(counts)
        # One piece of memory, which is used again when the last of its views is gone.
        out = self._buffers.take((int(ends[-1]),), np.uint8 if self._pixels_wanted else np.float32)
        work = (
            np.concatenate([planned.anchor, planned.shape], axis=-1),
            planned.mirror,
            np.array([view.interpolation == "bicubic" for view in planned.views]),
            planned.operation,
            planned.strength,
            sizes,
            ends - counts,
            out if self._pixels_wanted else np.empty(0, np.uint8),
            np.empty(0, np.float32) if self._pixels_wanted else out,
            *self._normalise,
        )
        samples = decoded if isinstance(decoded, list) else regions(decoded)

        def make(first: int, last: int) -> None:
            for i in range(first, last):
                _make_views(samples[i], i, *work)

        self._finisher.each(len(batch), make, PIECES)
        parts = zip(sizes.tolist(), (ends - counts).tolist(), ends.tolist(), strict=True)
        return [self._tensor(out[first:last], size) for size, first, last in parts], torch.from_numpy(batch.labels)

    def close(self) -> None:
        """Ends the threads."""
        self._finisher.close()

    def _tensor(self, images: npt.NDArray[Any], size: int) -> torch.Tensor:
        if self._pixels_wanted:
            return torch.from_numpy(images.reshape(-1, size, size, 3)).permute(0, 3, 1, 2)
        return torch.from_numpy(images.reshape(-1, 3, size, size))


class StoredRegions:
    """Where the DALI graph stands for JPEGs: of stored pixels the rows that were read are the regions."""

    def __init__(self, config: GraphConfig) -> None:
        self.config = config
        self._inside: deque[list[UInt8Array]] = deque()

    def push(self, batch: PlannedBatch, data: Sequence[UInt8Array]) -> None:
        """Takes a batch that was read: the bytes of each sample."""
        rows, windows = batch.rows, batch.windows
        assert rows is not None
        places = zip(
            data,
            rows.first.tolist(),
            rows.width.tolist(),
            windows.anchor[:, 1].tolist(),
            windows.shape.tolist(),
            strict=True,
        )
        self._inside.append(
            [
                sample[first : first + 3 * height * width].reshape(height, width, 3)[:, left : left + across]
                for sample, first, width, left, (height, across) in places
            ]
        )

    def pop(self) -> list[UInt8Array]:
        """The oldest batch inside: each sample's region (height, width, 3)."""
        return self._inside.popleft()

    def restart(self) -> None:
        """Drops the batches inside."""
        self._inside.clear()

    def close(self) -> None:
        """Drops the batches inside."""
        self._inside.clear()


@numba.njit(nogil=True, cache=True)
def _make_views(  # type: ignore[no-untyped-def]
    region, i, cut, mirror, cubic, operation, strength, sizes, starts, pixels, values, scale, bias
):
    """Makes all views of sample i, in `pixels` uint8 with channels last or, if that is empty, in `values` float32."""
    largest, normalised = sizes.max(), pixels.size == 0
    scratch = np.empty(3 * largest * largest if normalised else 0, np.uint8)
    for v in range(sizes.size):
        size = sizes[v]
        first, count = starts[v] + i * 3 * size * size, 3 * size * size
        image = (scratch[:count] if normalised else pixels[first : first + count]).reshape(size, size, 3)
        top, left, height, width = cut[i, v]
        # The window alone: its filter must not see what lies beside it.
        window = region[top : top + height, left : left + width]
        start, end = np.zeros(2, np.float32), np.array([height, width], np.float32)
        if cubic[v]:
            resample(window, start, end, mirror[i, v], True, image)
        else:
            resample(window, start, end, mirror[i, v], None, image)
        change_colour(image, operation[i, v], strength[i, v])
        if normalised:
            cut_normalise(image, 0, 0, scale, bias, values[first : first + count].reshape(3, size, size))
