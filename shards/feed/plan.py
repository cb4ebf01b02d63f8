"""The planner: walks through the epochs and says of each batch which samples it holds and which bytes it needs.

It never ends: after an epoch's last batch comes the next epoch's first, so the decoder has no gap between epochs. All
that it says follows from the split's index, the configuration and the cursor; the only state is where it stands.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shards.dataset import Split
from shards.sampling.batch import ByteRanges, Cursor, PixelRows, PlannedBatch
from shards.sampling.crops import Crop, CropWindows, crop_windows
from shards.sampling.order import BLOCK_SHARDS, Order, Share, epoch_order, upcoming
from shards.sampling.policies import Policy, draws


@dataclass(frozen=True)
class SamplingConfig:
    """Which samples, in which order, cropped how: everything but the cursor that decides what a batch shows."""

    share: Share
    seed: int
    order: Order
    crop: Crop
    flip: bool
    resize: int
    """Length of the shorter side before the crop."""
    size: int
    """Side of the square output."""
    block_shards: int = BLOCK_SHARDS
    """Shards in a shuffle block of the order "blocks"."""
    augment: Policy | None = None
    """The augmentation policy, if any."""


@dataclass(frozen=True)
class Lookahead:
    """How far ahead of use shards are announced, so that they can be fetched or read into the page cache."""

    blocks: int = 2
    """Shuffle blocks: the one being read, and the next."""
    renewals: int = 8
    """Announcements while that many samples are read, so that shards which are done with can go."""


class Planner:
    """Plans batch after batch from `cursor` on; one thread uses it.

    `whole_samples`: read each sample whole, as comparing its CRC-32 needs. Otherwise only the rows of the crop window
    are read of samples that are stored decoded.
    """

    def __init__(
        self,
        split: Split,
        config: SamplingConfig,
        cursor: Cursor,
        *,
        whole_samples: bool,
        ahead: Lookahead = Lookahead(),
    ) -> None:
        self._split = split
        self._config = config
        self._next = cursor
        self._raw = split.manifest.settings.encoding == "raw"
        self._rows_only = self._raw and not whole_samples
        self._ahead = ahead
        self._announced = (-1, -1)
        self._orders = _Orders(split, config)

    def next(self) -> PlannedBatch:
        """The batch at the cursor, which moves on by one step."""
        share = self._config.share
        if share.steps(len(self._split), self._next.position) == 0:
            self._next = Cursor(self._next.epoch + 1, 0)
        cursor = self._next
        ids = share.take(self._orders.of(cursor.epoch), cursor.position)
        self._next = cursor.after(share, len(self._split))
        return self.batch(cursor, ids, self._upcoming(cursor))

    def batch(self, cursor: Cursor, ids: npt.NDArray[np.int64], upcoming: list[int] | None = None) -> PlannedBatch:
        """The batch of these samples, as they look at this cursor."""
        config, index = self._config, self._split.index
        windows = crop_windows(
            config.crop,
            ids,
            index.height[ids],
            index.width[ids],
            resize=config.resize,
            size=config.size,
            flip=config.flip,
            seed=config.seed,
            epoch=cursor.epoch,
        )
        return PlannedBatch(
            cursor=cursor,
            ids=ids,
            labels=index.label[ids].astype(np.int64),
            windows=windows,
            size=config.size,
            ranges=self._ranges(ids, windows),
            rows=self._rows(ids, windows) if self._raw else None,
            draws={} if config.augment is None else draws(config.augment, ids, config.seed, cursor.epoch),
            upcoming=upcoming,
        )

    def close(self) -> None:
        """Ends the thread that computes orders."""
        self._orders.close()

    def _ranges(self, ids: npt.NDArray[np.int64], windows: CropWindows) -> ByteRanges:
        index = self._split.index
        shard, offset, size = index.shard[ids].tolist(), index.offset[ids], index.size[ids]
        if not self._rows_only:
            return ByteRanges(shard, offset.tolist(), size.tolist(), index.crc32[ids].tolist())
        first = offset + self._first_row(ids, windows)
        row = 3 * index.width[ids].astype(np.int64)
        return ByteRanges(shard, first.tolist(), (row * windows.shape[:, 0]).tolist())

    def _rows(self, ids: npt.NDArray[np.int64], windows: CropWindows) -> PixelRows:
        first = [0] * len(ids) if self._rows_only else self._first_row(ids, windows).tolist()
        return PixelRows(first, windows.shape[:, 0].tolist(), self._split.index.width[ids].tolist())

    def _first_row(self, ids: npt.NDArray[np.int64], windows: CropWindows) -> npt.NDArray[np.int64]:
        """Where in each file the first row of its crop window begins."""
        index = self._split.index
        # The pixels are the end of the file; the header before them has no fixed length.
        below = 3 * index.width[ids].astype(np.int64) * (index.height[ids] - windows.anchor[:, 0])
        return np.asarray(index.size[ids].astype(np.int64) - below)

    def _upcoming(self, cursor: Cursor) -> list[int] | None:
        """The shards that this rank reads next; None where the last announcement still holds, or nobody needs one."""
        config, samples, shards = self._config, len(self._split), len(self._split.info.shards)
        if config.order != "blocks" and self._split.origin is None:
            return None  # the kernel reads ahead by itself, or could not hold all shards
        horizon = self._ahead.blocks * config.block_shards * -(-samples // shards)
        step = max(config.share.global_batch, horizon // self._ahead.renewals)
        renewal = (cursor.epoch, cursor.position // step if config.order != "global" else 0)
        if renewal == self._announced:
            return None
        self._announced = renewal
        return self._all_shards(cursor) if config.order == "global" else self._shards_ahead(cursor, horizon)

    def _shards_ahead(self, cursor: Cursor, horizon: int) -> list[int]:
        """The shards of `horizon` positions, the next epoch's included where its order is known already."""
        shard, share = self._split.index.shard, self._config.share
        numbers = upcoming(shard, self._orders.of(cursor.epoch), share, cursor.position, horizon)
        rest = cursor.position + horizon - len(self._split)
        after = self._orders.after(cursor.epoch) if rest > 0 else None
        return numbers if after is None else numbers + upcoming(shard, after, share, 0, rest)

    def _all_shards(self, cursor: Cursor) -> list[int]:
        """All shards by their next use; always in the same order where the cache holds only a part of them."""
        every = list(range(len(self._split.info.shards)))
        if self._split.origin is not None and self._split.info.bytes > self._split.origin.cache.bytes:
            return every
        return list(dict.fromkeys(self._shards_ahead(cursor, len(self._split)) + every))


class _Orders:
    """The order of the running epoch; a thread computes the next one meanwhile, 0.2 s a million samples."""

    def __init__(self, split: Split, config: SamplingConfig) -> None:
        self._shard = split.index.shard
        self._config = config
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="shardfeed-order")
        self._orders: dict[int, Future[npt.NDArray[np.int64]]] = {}

    def of(self, epoch: int) -> npt.NDArray[np.int64]:
        """The order of `epoch`; begins to compute the one after it."""
        config = self._config
        for number in (epoch, epoch + 1):
            if number not in self._orders:
                self._orders[number] = self._thread.submit(
                    epoch_order, self._shard, config.order, config.seed, number, config.block_shards
                )
        self._orders = {number: order for number, order in self._orders.items() if number in (epoch, epoch + 1)}
        return self._orders[epoch].result()

    def after(self, epoch: int) -> npt.NDArray[np.int64] | None:
        """The order of the epoch after `epoch`, which `of` was asked for last; None while it is being computed."""
        following = self._orders[epoch + 1]
        return following.result() if following.done() else None

    def close(self) -> None:
        self._thread.shutdown(cancel_futures=True)
