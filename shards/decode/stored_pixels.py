"""Stored pixels on a CPU: the thread that reads a sample finishes it, while its rows are in that core's cache.

There is nothing to decode, so `StoredPixels` stands where the DALI graph stands for JPEGs. Reading a whole batch first
and cutting its crop windows afterwards takes a third to half longer (docs/decisions.md has the figures): the rows of a
batch are more than a cache holds, so they would go to main memory and come back.

A thread does all its samples of a batch in one compiled loop. Between samples it needs no lock of the interpreter, for
which it would wait while other threads have it: with small images such waits take longer than the work.
"""

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from shards.common.compiled.crc import crc32
from shards.common.compiled.pread import read_at, read_cached, will_read
from shards.decode.buffers import Buffers
from shards.decode.finish import cut_normalise, cut_out, scale_and_bias
from shards.decode.graph import GraphConfig
from shards.decode.resample import resample, resample_normalise
from shards.sampling.batch import PlannedBatch
from shards.sampling.colour import Augment

UInt8Array = npt.NDArray[np.uint8]
Int64Array = npt.NDArray[np.int64]


class StoredPixels:
    """Makes batches of crop windows: resized where need be, mirrored, and normalised for float32.

    `resizes`: whether crop windows are of other sizes than the output. `augment`: a policy comes between this and the
    mirror, so the images stay uint8 and are not mirrored here.
    """

    def __init__(self, config: GraphConfig, resizes: bool, augment: Augment | None) -> None:
        self.config = config
        normalises = config.dtype != "uint8" and augment is None
        self._normalise = scale_and_bias(config.mean, config.std) if normalises else None
        self._resizes = resizes
        self._mirrors = augment is None
        self._buffers = Buffers()
        self._scratch = _Scratch()
        self._inside: deque[npt.NDArray[Any]] = deque()

    def images(self, batch: PlannedBatch) -> npt.NDArray[Any]:
        """Room for the batch: float32 (n, 3, size, size), or uint8 (n, size, size, 3).

        Its memory is used again once nothing refers to it.
        """
        count, size = len(batch), batch.size
        if self._normalise is not None:
            return self._buffers.take((count, 3, size, size), np.float32)
        return self._buffers.take((count, size, size, 3), np.uint8)

    def destination(
        self, batch: PlannedBatch, images: npt.NDArray[Any], places: Sequence[int] | range
    ) -> "ImageDestination":
        """What makes of sample i of `batch` the image `places[i]` of `images`."""
        windows, rows = batch.windows, batch.rows
        assert rows is not None
        work = (
            batch.ranges.offset,
            batch.ranges.size,
            rows.first,
            rows.width,
            windows.anchor[:, 1].astype(np.int64),
            windows.shape.astype(np.int64),
            (windows.start, windows.end, True if self.config.interpolation == "bicubic" else None)
            if self._resizes
            else None,
            windows.mirror if self._mirrors else np.zeros_like(windows.mirror),
            self._normalise,
            np.asarray(places, np.int64),
            images,
        )
        return ImageDestination(batch, work, self._scratch)

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


class _Scratch(threading.local):
    """Memory of each thread: the same for every sample, so that it stays in the cache of the core."""

    def __init__(self) -> None:
        self._memory = np.empty(0, np.uint8)

    def of(self, size: int) -> UInt8Array:
        if self._memory.size < size:
            self._memory = np.empty(size, np.uint8)
        return self._memory[:size]


@dataclass(frozen=True)
class ImageDestination:
    """Where the samples of a batch become images; several threads use it, each for samples of its own."""

    batch: PlannedBatch
    work: tuple[Any, ...]
    """What `_finish` takes about all samples."""
    scratch: _Scratch

    def read(self, files: npt.NDArray[np.intc], part: Int64Array) -> npt.NDArray[np.bool_]:
        """Reads and finishes the samples `part` (k,) whose files (k,) are open; returns which are done (k,).

        Left to the caller: samples without an open file (-1), failed reads, wrong checksums.
        """
        ranges = self.batch.ranges
        scratch = self.scratch.of(int(ranges.size[part].max()))
        return _read_and_finish(files, part, ranges.crc32, scratch, *self.work)  # type: ignore[no-any-return]

    def room(self, i: int) -> UInt8Array:
        """Room for the bytes of sample i, valid on this thread until the next sample."""
        return self.scratch.of(int(self.batch.ranges.size[i]))

    def put(self, i: int, sample: UInt8Array) -> None:
        """Finishes sample i, whose bytes were read by other means."""
        _finish(i, sample, *self.work)


@numba.njit(nogil=True, cache=True)
def _read_and_finish(  # type: ignore[no-untyped-def]
    files, part, crc, scratch, offset, size, first, width, left, shape, resize, mirror, normalise, places, images
):
    done = np.zeros(files.size, np.bool_)
    # The bytes of a cold disk must be on their way together: threads that also compute are few. So after the first
    # sample that the page cache lacks, the kernel is asked for all others, before the first of them is waited for.
    waits = False
    for k in range(files.size):
        if files[k] < 0:
            continue
        i = part[k]
        if not waits and not read_cached(files[k], scratch.ctypes.data, size[i], offset[i]):
            waits = True
            for later in range(k, files.size):
                if files[later] >= 0:
                    will_read(files[later], offset[part[later]], size[part[later]])
        if not waits or read_at(files[k], scratch.ctypes.data, size[i], offset[i]):
            if crc[i] >= 0 and crc32(scratch, 0, size[i]) != crc[i]:
                continue
            sample = scratch[: size[i]]
            _finish(i, sample, offset, size, first, width, left, shape, resize, mirror, normalise, places, images)
            done[k] = True
    return done


@numba.njit(nogil=True, cache=True)
def _finish(  # type: ignore[no-untyped-def]
    i, sample, offset, size, first, width, left, shape, resize, mirror, normalise, places, images
):
    """Makes of sample i its image. What is None is not done: numba compiles a function of its own for each case."""
    height, across = shape[i, 0], shape[i, 1]
    rows = sample[first[i] : first[i] + 3 * height * width[i]].reshape(height, width[i], 3)
    out = images[places[i]]
    if resize is None:
        if normalise is None:
            cut_out(rows, left[i], mirror[i], out)
        else:
            cut_normalise(rows, left[i], mirror[i], normalise[0], normalise[1], out)
    else:
        # The region alone: the filter must not see what lies beside it, as where nothing else was decoded.
        region = rows[:, left[i] : left[i] + across]
        if normalise is None:
            resample(region, resize[0][i], resize[1][i], mirror[i], resize[2], out)
        else:
            scale, bias = normalise
            resample_normalise(region, resize[0][i], resize[1][i], mirror[i], resize[2], scale, bias, out)
