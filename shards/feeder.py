"""What each batch is made of: positions of an endless run of epochs -> sample ids, windows, labels and bytes.

The feeder is what DALI calls for its next batch. It never ends: after an epoch's last batch comes
the next epoch's first, so that the decoder has no gap between epochs. What was fed and has not yet
come out stands in `planned`, in order.
"""

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shards.crops import Crop, Windows, windows
from shards.dataset import Split
from shards.order import Share, epoch_order
from shards.store import MappedShards


@dataclass(frozen=True)
class Recipe:
    """Which samples, in which order, cropped how: everything that decides what a batch shows but its place."""

    share: Share
    seed: int
    shuffle: bool
    crop: Crop
    flip: bool
    resize: int
    """Length of the shorter side before the crop."""
    size: int
    """Side of the square output."""


@dataclass(frozen=True)
class Place:
    """Where an epoch stands: the next global batch starts at `position` of epoch `epoch`."""

    epoch: int
    position: int


@dataclass(frozen=True)
class Planned:
    """A batch on its way through the graph."""

    place: Place
    ids: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    arrays: dict[str, Any]
    """What the graph was fed. It reads these arrays in place, so they live until the batch comes out."""


class Feeder:
    """Plans batch after batch and hands their bytes to the graph; one thread at a time may use it."""

    def __init__(self, split: Split, recipe: Recipe, inputs: tuple[str, ...]) -> None:
        self._split = split
        self._recipe = recipe
        self._inputs = inputs
        self._store = MappedShards(split.shard_paths, [shard.bytes for shard in split.info.shards])
        self._orders = _Orders(len(split), recipe)
        self._next = Place(0, 0)
        self.planned: deque[Planned] = deque()

    def seek(self, place: Place) -> None:
        """Goes on from `place`. Batches already planned still come out of the graph."""
        self._next = place

    def __call__(self) -> tuple[Any, ...]:
        """Plans the next batch; returns what `shards.pipeline.build` asks of its source."""
        ids, place = self._advance()
        index, recipe = self._split.index, self._recipe
        cut = windows(
            recipe.crop,
            ids,
            index.height[ids],
            index.width[ids],
            resize=recipe.resize,
            size=recipe.size,
            flip=recipe.flip,
            seed=recipe.seed,
            epoch=place.epoch,
        )
        arrays = {"encoded": self._encoded(ids), **_columns(cut)}
        self.planned.append(Planned(place, ids, index.label[ids].astype(np.int64), arrays))
        return tuple(arrays[name] for name in self._inputs)

    def close(self) -> None:
        """Ends the thread that permutes epochs ahead."""
        self._orders.close()

    def _advance(self) -> tuple[npt.NDArray[np.int64], Place]:
        """The sample ids of the next batch and its place; asks the kernel for the bytes of the one after it."""
        share, samples = self._recipe.share, len(self._split)
        if share.steps(samples, self._next.position) == 0:
            self._next = Place(self._next.epoch + 1, 0)
        place = self._next
        order = self._orders.of(place.epoch)
        ids = share.take(order, place.position)
        self._next = Place(place.epoch, place.position + share.global_batch)
        self._announce(share.take(order, self._next.position))
        return ids, place

    def _encoded(self, ids: npt.NDArray[np.int64]) -> list[npt.NDArray[np.uint8]]:
        index, read = self._split.index, self._store.read
        # Python integers: a numpy scalar costs several times as much in every use that follows.
        shards, offsets, sizes = index.shard[ids].tolist(), index.offset[ids].tolist(), index.size[ids].tolist()
        return [read(*where) for where in zip(shards, offsets, sizes, strict=True)]

    def _announce(self, ids: npt.NDArray[np.int64]) -> None:
        index = self._split.index
        shards, offsets, sizes = index.shard[ids].tolist(), index.offset[ids].tolist(), index.size[ids].tolist()
        for where in zip(shards, offsets, sizes, strict=True):
            self._store.announce(*where)


def _columns(cut: Windows) -> dict[str, npt.NDArray[Any]]:
    return {"anchor": cut.anchor, "shape": cut.shape, "mirror": cut.mirror, "start": cut.start, "end": cut.end}


class _Orders:
    """The order of the epoch being fed; the next one is permuted on a thread meanwhile, which takes 0.1 s a million."""

    def __init__(self, samples: int, recipe: Recipe) -> None:
        self._samples = samples
        self._recipe = recipe
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="shardfeed-order")
        self._orders: dict[int, Future[npt.NDArray[np.int64]]] = {}

    def of(self, epoch: int) -> npt.NDArray[np.int64]:
        for number in (epoch, epoch + 1):
            if number not in self._orders:
                self._orders[number] = self._thread.submit(
                    epoch_order, self._samples, self._recipe.seed, number, self._recipe.shuffle
                )
        self._orders = {number: order for number, order in self._orders.items() if number in (epoch, epoch + 1)}
        return self._orders[epoch].result()

    def close(self) -> None:
        self._thread.shutdown(cancel_futures=True)
