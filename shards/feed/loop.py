"""The thread that makes batches: it feeds the DALI graph, takes what comes out, and on a CPU finishes it.

A batch is asked for by its place. Places follow each other in training, so the thread works ahead;
a place out of sequence makes it throw away what is on its way and start there.
"""

import dataclasses
import threading
import zlib
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.dlpack import from_dlpack

from shards.common.errors import ShardfeedError
from shards.dataset import Split
from shards.decode.finish import Finisher
from shards.decode.graph import Graph, build
from shards.decode.policy_operators import Augmenter
from shards.decode.stored_pixels import Cutter
from shards.feed.plan import Feeder, Place, Planned, Recipe, describe

Batch = tuple[torch.Tensor, torch.Tensor]

# What the names of all threads of a loader begin with.
THREADS = "shardfeed-"
# Finished batches kept ready for the consumer, beside those inside the graph.
READY = 2


def must_resize(split: Split, recipe: Recipe) -> bool:
    """Whether windows are of other sizes than the output."""
    if recipe.crop == "rrc":
        return True
    return bool(np.any(np.minimum(split.index.width, split.index.height) != recipe.resize))


class Producer:
    """The thread that makes batches, and what it works with. It knows nothing of the loader, so that can be freed."""

    def __init__(self, split: Split, recipe: Recipe, graph: Graph) -> None:
        self.recipe = recipe
        self._split = split
        self._graph = graph
        self._finisher = Finisher(graph.threads)
        self._resizes = must_resize(split, recipe)
        self._cutter = _cutter(recipe, graph, self._resizes)
        self._feeder = Feeder(split, recipe, graph.decode, graph.inputs, self._cutter, graph.threads)
        self._augmenter = (
            Augmenter(recipe.augment, graph.batch_size, graph.threads)
            if recipe.augment is not None and graph.device == "cpu"
            else None
        )
        self._pipeline = self._built()
        self._expected: Place | None = None
        self._stream: Any = None
        self._run: _Run | None = None

    def take(self, place: Place) -> Batch:
        """The batch at `place`: waits for it where batches are made in sequence, and seeks where they are not."""
        if self._run is None or place != self._expected:
            self._stop()
            self._feeder.seek(place)
            if self._graph.device == "gpu":
                # Batches are handed over, and their memory is freed, in the order of the consumer's stream.
                self._stream = torch.cuda.current_stream(self._graph.device_id)
            stale = len(self._feeder.planned)
            self._run = _Run(self._make, drop=self._next, stale=stale)
        batch: Batch = self._run.take()
        share, samples = self.recipe.share, len(self._split)
        after = Place(place.epoch, place.position + share.global_batch)
        self._expected = after if share.steps(samples, after.position) else Place(place.epoch + 1, 0)
        return batch

    @property
    def skipped(self) -> int:
        return self._feeder.skipped

    def change(self, recipe: Recipe) -> None:
        """Makes batches by another recipe from the next one taken on."""
        self._stop()
        self.recipe = self._feeder.recipe = recipe
        self._resizes = must_resize(self._split, recipe)
        if self._cutter is not None:
            self._cutter.resizes = self._resizes
        if self._graph.device == "gpu" and self._resizes != self._graph.resize:
            self._graph = dataclasses.replace(self._graph, resize=self._resizes)
            self._feeder.planned.clear()
            self._feeder.inputs = self._graph.inputs
            self._pipeline = self._built()

    def close(self) -> None:
        if threading.current_thread().name.startswith(THREADS):
            # The garbage collector found the loader on a thread of a loader, which would wait for itself.
            threading.Thread(target=self._close, name="close").start()
        else:
            self._close()

    def _close(self) -> None:
        self._stop()
        self._feeder.close()
        self._finisher.close()

    def _stop(self) -> None:
        if self._run is not None:
            self._run.stop()
        self._run = None

    def _built(self) -> Any:
        """The graph; None where the threads that read have done all of its work."""
        return None if self._cutter is not None else build(self._graph, self._feeder)

    def _make(self) -> Batch:
        """The next batch, finished."""
        output, planned = self._next()
        if self._graph.device == "gpu":
            return self._hand_over(output, planned)
        if self._augmenter is not None:
            images = self._augmented(output, planned)
        else:
            images = self._finish(output, planned) if planned.images is None else self._tensor(planned.images)
        return images, torch.from_numpy(planned.labels)

    def _next(self) -> tuple[Any, Planned]:
        """What comes out of the graph next, None where there is no graph, and what it was fed for it."""
        if self._pipeline is None:
            self._feeder()
            return None, self._feeder.planned.popleft()
        try:
            outputs = self._pipeline.run(self._stream)
        except RuntimeError as error:
            raise _explain(error, list(self._feeder.planned), self._split) from error
        return outputs[0], self._feeder.planned.popleft()

    def _finish(self, output: Any, planned: Planned) -> torch.Tensor:
        """What the CPU graph decoded, resized where need be, mirrored, and normalised for float32."""
        if not self._resizes:
            # The tensor owns DALI's buffer from here on; its numpy view shares the memory.
            return self._mirrored(from_dlpack(output.as_tensor()), planned.arrays["mirror"])
        finisher, size, regions = self._finisher, self.recipe.size, _regions(output)
        cut, mirror = (planned.arrays["start"], planned.arrays["end"]), planned.arrays["mirror"]
        resize = finisher.resize if self._graph.dtype == "uint8" else finisher.resize_normalise
        return self._tensor(resize(regions, cut, size, mirror))

    def _augmented(self, output: Any, planned: Planned) -> torch.Tensor:
        """As `_finish`, with the policy after the resize and before the mirror, as on a GPU."""
        assert self._augmenter is not None
        images, mirror = planned.images, planned.arrays["mirror"]
        if images is None:
            cut = (planned.arrays["start"], planned.arrays["end"])
            # A window that fits is copied by the resize, bit for bit.
            images = self._finisher.resize(_regions(output), cut, self.recipe.size, np.zeros_like(mirror))
        return self._mirrored(from_dlpack(self._augmenter(images, planned.arrays)), mirror)

    def _mirrored(self, pixels: torch.Tensor, mirror: npt.NDArray[np.int32]) -> torch.Tensor:
        """Pixels (n, height, width, 3), which nobody else uses, mirrored, and normalised for float32."""
        if self._graph.dtype == "uint8":
            self._finisher.flip(pixels.numpy(), mirror)
            return pixels.permute(0, 3, 1, 2)
        return torch.from_numpy(self._finisher.normalise(pixels.numpy(), mirror))

    def _tensor(self, images: npt.NDArray[Any]) -> torch.Tensor:
        """A tensor (n, 3, height, width) over the memory of what is finished, which has channels last if uint8."""
        tensor = torch.from_numpy(images)
        return tensor.permute(0, 3, 1, 2) if self._graph.dtype == "uint8" else tensor

    def _hand_over(self, output: Any, planned: Planned) -> Batch:
        with torch.cuda.stream(self._stream):
            images = from_dlpack(output.as_tensor()).permute(0, 3, 1, 2)
            labels = torch.from_numpy(planned.labels).pin_memory().to(images.device, non_blocking=True)
        return images, labels


def _regions(output: Any) -> list[npt.NDArray[np.uint8]]:
    """Each sample's region (height, width, 3), as it was decoded."""
    # Views: `output.at(i)` would copy, 15 microseconds an image.
    return [np.asarray(output[i]) for i in range(len(output))]


def _cutter(recipe: Recipe, graph: Graph, resizes: bool) -> Cutter | None:
    """What makes images of pixels that are stored decoded, for a CPU. A policy comes between it and the mirror."""
    if graph.decode != "raw" or graph.device != "cpu":
        return None
    plain = graph.dtype == "uint8" or recipe.augment is not None
    return Cutter("uint8" if plain else "float32", resizes, recipe.augment is None)


class _Run:
    """A thread that calls `drop` `stale` times, and then `make` over and over and keeps up to READY results."""

    def __init__(self, make: Callable[[], Batch], drop: Callable[[], object], stale: int) -> None:
        self._make = make
        self._drop = drop
        self._stale = stale
        self._slots = threading.Semaphore(READY)
        self._ready: SimpleQueue[Batch | BaseException] = SimpleQueue()
        self._stopped = False
        self._thread = threading.Thread(target=self._work, name="shardfeed-loader", daemon=True)
        self._thread.start()

    def take(self) -> Batch:
        """The next result; raises what `make` raised."""
        result = self._ready.get()
        if isinstance(result, BaseException):
            # Kept for whoever asks again: the thread is gone and nothing else will come.
            self._ready.put(result)
            raise result
        self._slots.release()
        return result

    def stop(self) -> None:
        """Ends the thread once the batch in its hands is done."""
        self._stopped = True
        self._slots.release()
        self._thread.join()

    def _work(self) -> None:
        try:
            for _ in range(self._stale):
                self._drop()
            while True:
                self._slots.acquire()
                if self._stopped:
                    return
                self._ready.put(self._make())
        except BaseException as error:
            self._ready.put(error)


def _explain(error: RuntimeError, planned: list[Planned], split: Split) -> ShardfeedError:
    """Names the samples in the graph whose bytes are not what the index says; otherwise passes DALI's words on."""
    index = split.index
    for batch in planned:
        for sample, data in zip(batch.ids.tolist(), batch.arrays.get("encoded", []), strict=False):
            if zlib.crc32(data) != int(index.crc32[sample]):
                return ShardfeedError(describe(split, sample, "is damaged (its checksum is wrong)"))
    return ShardfeedError(f"DALI failed on a batch of {split.name}: {' '.join(str(error).split())}")
