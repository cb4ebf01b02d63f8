"""What each batch is made of: positions of an endless run of epochs -> sample ids, bytes, windows and labels.

The feeder is what DALI calls for its next batch. It never ends: after an epoch's last batch comes
the next epoch's first, so that the decoder has no gap between epochs. It reads some batches before
they are asked for. What was fed and has not yet come out of the graph stands in `planned`, in order.

Stored pixels need no graph on a CPU: there the threads that read finish the images, by a `Cutter`.
"""

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shards.common.errors import ShardfeedError
from shards.dataset import Split
from shards.decode.graph import Decode
from shards.decode.stored_pixels import Cutter, Rows, window
from shards.feed.local import LocalShards
from shards.feed.read import READERS, Places, Reading, ShardStore, Store
from shards.remote.prefetch import Prefetcher
from shards.sampling.crops import Crop, Windows, windows
from shards.sampling.order import WINDOW, Order, Share, epoch_order, upcoming
from shards.sampling.policies import Policy, draws

# Batches being read while the graph still has others to decode; finished images take several times their room.
AHEAD, FINISHED_AHEAD = 4, 2
# How far ahead shards are announced, in windows of "blocks": the one being read and the next. It is said anew several
# times while a window is read, so that what is done with can go.
HORIZON, RENEWALS = 2, 8


@dataclass(frozen=True)
class Recipe:
    """Which samples, in which order, cropped how: everything that decides what a batch shows but its place."""

    share: Share
    seed: int
    order: Order
    crop: Crop
    flip: bool
    resize: int
    """Length of the shorter side before the crop."""
    size: int
    """Side of the square output."""
    skip_damaged: bool
    """Put the next whole sample in the place of one that cannot be read or whose checksum is wrong."""
    window: int = WINDOW
    """Shards that the order "blocks" mixes."""
    augment: Policy | None = None
    """The augmentation policy, if any."""


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
    """What the graph is fed, by `Graph.inputs`. It reads these arrays in place, so they live until the batch is out."""
    images: npt.NDArray[Any] | None
    """The images, where the threads that read finished them."""


@dataclass(frozen=True)
class _Begun:
    """A batch whose bytes are being read."""

    place: Place
    ids: npt.NDArray[np.int64]
    cut: Windows
    images: npt.NDArray[Any] | None
    reading: Reading


class Feeder:
    """Plans batch after batch and hands their bytes to the graph; one thread at a time may use it.

    `decode`: what the graph makes of them, which decides what of each sample is read. `cutter`: what makes images of
    them in its place, if anything; `threads` work for it.
    """

    def __init__(
        self,
        split: Split,
        recipe: Recipe,
        decode: Decode,
        inputs: tuple[str, ...],
        cutter: Cutter | None = None,
        threads: int = 1,
    ) -> None:
        self._split = split
        self.recipe = recipe
        self.inputs = inputs
        self._decode = decode
        self._cutter = cutter
        self._ahead = AHEAD if cutter is None else FINISHED_AHEAD
        self._store = _store(split, recipe, None if cutter is None else threads)
        self._orders = _Orders(split, recipe)
        self._next = Place(0, 0)
        self._reading: deque[_Begun] = deque()
        self._announced = (-1, -1)
        self.planned: deque[Planned] = deque()
        self.skipped = 0

    def seek(self, place: Place) -> None:
        """Goes on from `place`. Batches already handed to the graph still come out of it."""
        self._next = place
        for begun in self._reading:
            begun.reading.cancel()
        self._reading.clear()

    def __call__(self) -> tuple[Any, ...]:
        """Plans the next batch; returns what `shards.decode.graph.build` asks of its source, nothing if there is a cutter.

        Raises ShardfeedError for a sample that cannot be read, unless damaged ones are to be skipped.
        """
        while len(self._reading) <= self._ahead:
            place, ids = self._advance()
            cut = self._cut(place, ids)
            images = None if self._cutter is None else self._cutter.take(len(ids), self.recipe.size)
            self._reading.append(_Begun(place, ids, cut, images, self._read(ids, cut, images, range(len(ids)))))
        begun = self._reading.popleft()
        place, cut = begun.place, begun.cut
        ids, data = self._whole(begun)
        if ids is not begun.ids:
            cut = self._cut(place, ids)
        arrays: dict[str, Any] = {"mirror": cut.mirror}
        if begun.images is None:
            arrays |= {
                **self._pixels(ids, cut, data),
                **_columns(cut, rows=self._decode == "raw"),
                "size": np.full((len(ids), 2), self.recipe.size, np.float32),
            }
        if self.recipe.augment is not None:
            arrays |= draws(self.recipe.augment, ids, self.recipe.seed, place.epoch)
        planned = Planned(place, ids, self._split.index.label[ids].astype(np.int64), arrays, begun.images)
        self.planned.append(planned)
        return () if self._cutter is not None else tuple(arrays[name] for name in self.inputs)

    def close(self) -> None:
        """Ends the threads and closes the shards."""
        self._orders.close()
        self._store.close()

    def _advance(self) -> tuple[Place, npt.NDArray[np.int64]]:
        """The place and the sample ids of the next batch."""
        share, samples = self.recipe.share, len(self._split)
        if share.steps(samples, self._next.position) == 0:
            self._next = Place(self._next.epoch + 1, 0)
        place = self._next
        ids = share.take(self._orders.of(place.epoch), place.position)
        self._next = Place(place.epoch, place.position + share.global_batch)
        self._announce(place)
        return place, ids

    def _announce(self, place: Place) -> None:
        """Says which shards this rank reads from next, every now and then."""
        if self.recipe.order != "blocks" and self._split.origin is None:
            return  # the kernel reads on by itself, or could not hold them all
        share = self.recipe.share
        horizon = HORIZON * self.recipe.window * -(-len(self._split) // len(self._split.info.shards))
        step = max(share.global_batch, horizon // RENEWALS)
        renewal = (place.epoch, place.position // step if self.recipe.order != "global" else 0)
        if renewal == self._announced:
            return
        self._announced = renewal
        # What is being read comes first: it must not be let go of before.
        numbers = [number for begun in self._reading for number in self._split.index.shard[begun.ids].tolist()]
        numbers += self._all_shards(place) if self.recipe.order == "global" else self._upcoming(place, horizon)
        self._store.announce(list(dict.fromkeys(numbers)))

    def _upcoming(self, place: Place, horizon: int) -> list[int]:
        """The shards of so many positions, those of the next epoch included where its order is known already."""
        shard, share = self._split.index.shard, self.recipe.share
        numbers = upcoming(shard, self._orders.of(place.epoch), share, place.position, horizon)
        rest = place.position + horizon - len(self._split)
        after = self._orders.after(place.epoch) if rest > 0 else None
        return numbers if after is None else numbers + upcoming(shard, after, share, 0, rest)

    def _all_shards(self, place: Place) -> list[int]:
        """All shards, by their next use; always in the same order if a part of them has to do for the cache."""
        every = list(range(len(self._split.info.shards)))
        if self._split.origin is not None and self._split.info.bytes > self._split.origin.cache.bytes:
            return every
        return self._upcoming(place, len(self._split)) + every

    def _cut(self, place: Place, ids: npt.NDArray[np.int64]) -> Windows:
        index, recipe = self._split.index, self.recipe
        return windows(
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

    @property
    def _rows_only(self) -> bool:
        """Whether the rows of a window are read instead of the whole sample, which a checksum would need."""
        return self._decode == "raw" and not self.recipe.skip_damaged

    def _places(self, ids: npt.NDArray[np.int64], cut: Windows) -> Places:
        index = self._split.index
        shard, offset, size = index.shard[ids].tolist(), index.offset[ids], index.size[ids]
        if not self._rows_only:
            return Places(shard, offset.tolist(), size.tolist(), index.crc32[ids].tolist())
        row = 3 * index.width[ids].astype(np.int64)
        first = offset + size - row * (index.height[ids] - cut.anchor[:, 0])
        return Places(shard, first.tolist(), (row * cut.shape[:, 0]).tolist())

    def _read(
        self, ids: npt.NDArray[np.int64], cut: Windows, images: npt.NDArray[Any] | None, positions: Sequence[int]
    ) -> Reading:
        """Begins to read samples; images at `positions` are made of them, if any are made here."""
        places = self._places(ids, cut)
        if self._cutter is None or images is None:
            return self._store.read(places)
        return self._store.read(places, self._cutter.into(images, positions, self._rows(ids, cut), cut))

    def _rows(self, ids: npt.NDArray[np.int64], cut: Windows) -> Rows:
        """Where the rows of each window lie in what is read of its sample."""
        index = self._split.index
        width = index.width[ids].astype(np.int64)
        # The pixels are the file's end; what stands before them has no fixed length.
        first = index.size[ids].astype(np.int64) - 3 * width * (index.height[ids] - cut.anchor[:, 0])
        begin = [0] * len(ids) if self._rows_only else first.tolist()
        return Rows(begin, cut.shape[:, 0].tolist(), width.tolist())

    def _pixels(self, ids: npt.NDArray[np.int64], cut: Windows, data: list[npt.NDArray[np.uint8]]) -> dict[str, Any]:
        """What the decoder reads; or, of samples that are stored decoded, the rows of each window, uint8 (h, w, 3)."""
        if self._decode != "raw":
            return {"encoded": data}
        rows = self._rows(ids, cut)
        return {"rows": [window(each, rows, i) for i, each in enumerate(data)]}

    def _whole(self, begun: _Begun) -> tuple[npt.NDArray[np.int64], list[npt.NDArray[np.uint8]]]:
        """Ids and bytes of a batch, whole samples in the place of damaged ones where that is wanted."""
        ids, data = begun.ids, begun.reading.data
        bad = begun.reading.wait()
        for _ in range(len(self._split)):
            if not bad:
                return ids, data
            if not self.recipe.skip_damaged:
                position, trouble = bad[0]
                raise ShardfeedError(describe(self._split, int(ids[position]), trouble))
            self.skipped += len(bad)
            positions = [position for position, _ in bad]
            ids = ids.copy()
            ids[positions] = (ids[positions] + 1) % len(self._split)
            others = ids[positions]
            again = self._read(others, self._cut(begun.place, others), begun.images, positions)
            bad = [(positions[i], trouble) for i, trouble in again.wait()]
            for i, more in enumerate(again.data):
                data[positions[i]] = more
        raise ShardfeedError(f"no sample of {self._split.name} can be read: copy or make the data set again")


def _store(split: Split, recipe: Recipe, threads: int | None) -> Store:
    """Where the split's bytes come from; with `threads`, those that finish images too."""
    check = recipe.skip_damaged
    if split.origin is not None:  # a range of a shard that is not here is waited for, by as many as ever
        return ShardStore(Prefetcher(split.remote_shards()), check, max(READERS, threads or 1))
    files = LocalShards(split.shard_paths, [shard.bytes for shard in split.info.shards])
    return ShardStore(files, check, threads or READERS)


def describe(split: Split, sample: int, trouble: str) -> str:
    """One line that names a sample, its shard and its place there, and says what to do."""
    index = split.index
    return (
        f"sample {split.keys()[sample]} in {split.shard_place(int(index.shard[sample]))} at byte "
        f"{int(index.offset[sample]):,} {trouble}: copy or make the shard again; on_error skip goes on without it"
    )


def _columns(cut: Windows, rows: bool) -> dict[str, npt.NDArray[Any]]:
    """The columns of `cut`; of windows whose rows alone are handed on (`rows`), the region starts in the first one."""
    anchor = cut.anchor * np.array([0, 1], np.int32) if rows else cut.anchor
    return {"anchor": anchor, "shape": cut.shape, "mirror": cut.mirror, "start": cut.start, "end": cut.end}


class _Orders:
    """The order of the epoch being fed; the next one is computed on a thread meanwhile, 0.2 s a million samples."""

    def __init__(self, split: Split, recipe: Recipe) -> None:
        self._split = split
        self.recipe = recipe
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="shardfeed-order")
        self._orders: dict[int, Future[npt.NDArray[np.int64]]] = {}

    def of(self, epoch: int) -> npt.NDArray[np.int64]:
        recipe, shard = self.recipe, self._split.index.shard
        for number in (epoch, epoch + 1):
            if number not in self._orders:
                self._orders[number] = self._thread.submit(
                    epoch_order, shard, recipe.order, recipe.seed, number, recipe.window
                )
        self._orders = {number: order for number, order in self._orders.items() if number in (epoch, epoch + 1)}
        return self._orders[epoch].result()

    def after(self, epoch: int) -> npt.NDArray[np.int64] | None:
        """The order of the epoch that follows, if it is known already; `of` was asked for this one."""
        following = self._orders[epoch + 1]
        return following.result() if following.done() else None

    def close(self) -> None:
        self._thread.shutdown(cancel_futures=True)
