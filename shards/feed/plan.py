"""The planner: decides, batch by batch, which samples a batch holds and which bytes to read.

Small batches for a GPU are planned several at a time, since it decodes many images at once (`together`). Neighbours in
a batch do not matter to a sample, so it looks the same.

It never ends: after an epoch's last batch comes the next epoch's first, so the decoder has no gap between epochs. A
plan follows from the split's index, the configuration and the cursor; the cursor is the only state.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from shards.common.errors import UsageError
from shards.dataset import Split
from shards.sampling.batch import NOT_COMPARED, ByteRanges, Cursor, PixelRows, PlannedBatch
from shards.sampling.colour import Augment, three_draws
from shards.sampling.crops import RRC_RATIO, RRC_SCALE, Crop, CropWindows, Interpolation, crop_in_words, crop_windows
from shards.sampling.draw import EACH_ONCE, Draw
from shards.sampling.order import BLOCK_SHARDS, Order, Share, upcoming
from shards.sampling.policies import draws
from shards.sampling.views import View, plan_views


@dataclass(frozen=True)
class SamplingConfig:
    """Which samples, in which order, cropped how: everything but the cursor that decides what a batch shows."""

    share: Share
    seed: int
    """Of crop windows, flips and policies."""
    order_seed: int
    order: Order
    crop: Crop
    flip: bool
    resize: int
    """Length of the shorter side before the crop."""
    size: int
    """Side of the square output."""
    block_shards: int = BLOCK_SHARDS
    """Shards in a shuffle block of the order "blocks"."""
    augment: Augment | None = None
    """The augmentation policy or 3-Augment, if any."""
    padding: int = 0
    """Black pixels on each side of the resized image, for the crop "random"."""
    draw: Draw = EACH_ONCE
    """Which samples an epoch holds."""
    interpolation: Interpolation = "bilinear"
    """The filter of the resize, which says how much around a crop window is decoded."""
    views: tuple[View, ...] = ()
    """Several views of each sample, one by one, in place of its crop window."""
    scale: tuple[float, float] = RRC_SCALE
    """For the crop "rrc": the window's share of the image's area."""
    ratio: tuple[float, float] = RRC_RATIO
    """For the crop "rrc": the window's width by its height."""

    def __post_init__(self) -> None:
        if self.padding and self.crop != "random":
            raise UsageError(f"padding is for crop='random', not {crop_in_words(self.crop)}")
        if self.padding >= self.size:
            raise UsageError(f"padding must be less than size, which is {self.size}, not {self.padding}")
        if self.crop != "rrc" and (self.scale, self.ratio) != (RRC_SCALE, RRC_RATIO):
            raise UsageError(f"scale and ratio are for crop='rrc', not {crop_in_words(self.crop)}")
        if self.order != "blocks" and self.block_shards != BLOCK_SHARDS:
            raise UsageError(f"window is for order='blocks', not {self.order!r}")


@dataclass(frozen=True)
class Lookahead:
    """How far ahead of use shards are announced, so that they can be fetched or read into the page cache."""

    blocks: int = 2
    """Shuffle blocks: the one being read, and the next."""
    renewals: int = 8
    """Announcements in that span: the more there are, the sooner finished shards are freed."""


class Planner:
    """Plans batch after batch from `cursor` on; one thread uses it.

    `check`: every sample is read whole and its CRC-32 compared. Otherwise that is done with the first sample of each
    shard, which tells a shard of another data set apart; and of samples that are stored decoded only the rows of the
    crop window are read.
    `together`: how many batches of one epoch, at most, are planned as one.
    """

    def __init__(
        self,
        split: Split,
        config: SamplingConfig,
        cursor: Cursor,
        *,
        check: bool,
        together: int = 1,
        ahead: Lookahead = Lookahead(),
    ) -> None:
        self._split = split
        self._config = config
        self._next = cursor
        self._length = config.draw.length(len(split))
        self._raw = split.manifest.settings.encoding == "raw"
        self._unchecked = np.full(len(split.info.shards), not check)  # shards of which no sample was checked yet
        self._check = check
        self._together = together
        self._ahead = ahead
        self._announced = (-1, -1)
        self._orders = _Orders(split, config)

    def next(self) -> PlannedBatch:
        """The batch at the cursor, or several as one; the cursor moves on by as many steps."""
        share, samples = self._config.share, self._length
        if share.steps(samples, self._next.position) == 0:
            self._next = Cursor(self._next.epoch + 1, 0)
        cursor = self._next
        steps = max(1, min(self._together, share.steps(samples, cursor.position)))
        # A rank's samples of several steps in a row are those of one step with as many times the samples.
        several = replace(share, batch_size=steps * share.batch_size)
        drawn = several.take(self._orders.of(cursor.epoch), cursor.position)
        for _ in range(steps):
            self._next = self._next.after(share, samples)
        return self.batch(cursor, drawn, self._upcoming(cursor))

    @property
    def batch_size(self) -> int:
        """Samples of one step."""
        return self._config.share.batch_size

    def batch(self, cursor: Cursor, drawn: npt.NDArray[np.int64], upcoming: list[int] | None = None) -> PlannedBatch:
        """The batch of these draws, as they look at this cursor."""
        config, index = self._config, self._split.index
        ids = drawn % len(index)
        height, width, views = index.height[ids], index.width[ids], None
        if config.views:
            windows, views = plan_views(config.views, drawn, height, width, seed=config.seed, epoch=cursor.epoch)
        else:
            windows = crop_windows(
                config.crop,
                drawn,
                height,
                width,
                resize=config.resize,
                size=config.size,
                flip=config.flip,
                seed=config.seed,
                epoch=cursor.epoch,
                padding=config.padding,
                interpolation=config.interpolation,
                scale=config.scale,
                ratio=config.ratio,
            )
        ranges, rows = self._bytes(ids, windows)
        return PlannedBatch(
            cursor=cursor,
            ids=ids,
            drawn=drawn,
            labels=index.label[ids].astype(np.int64),
            windows=windows,
            size=config.size,
            ranges=ranges,
            rows=rows,
            draws=_draws(config.augment, drawn, config.seed, cursor.epoch),
            views=views,
            upcoming=upcoming,
        )

    def close(self) -> None:
        """Ends the thread that computes orders."""
        self._orders.close()

    def _bytes(self, ids: npt.NDArray[np.int64], windows: CropWindows) -> tuple[ByteRanges, PixelRows | None]:
        """What to read of each sample; for stored pixels also where the rows of its crop window lie in those bytes."""
        index = self._split.index
        shard, offset, size = index.shard[ids], index.offset[ids], index.size[ids].astype(np.int64)
        checked = self._checked(shard)
        crc32 = np.where(checked, index.crc32[ids].astype(np.int64), NOT_COMPARED)
        if not self._raw:
            return ByteRanges(shard, offset, size, crc32), None
        width, (rows, top) = index.width[ids].astype(np.int64), (windows.shape[:, 0], windows.anchor[:, 0])
        # The pixels are the end of the file; the header before them has no fixed length.
        first = size - 3 * width * (index.height[ids] - top)
        start, length = np.where(checked, 0, first), np.where(checked, size, 3 * width * rows)
        return ByteRanges(shard, offset + start, length, crc32), PixelRows(first - start, width)

    def _checked(self, shard: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
        """Whether the CRC-32 of each sample is compared, (n,), for samples that lie in these shards."""
        checked = np.zeros(len(shard), bool)
        if not self._split.info.checksums:
            return checked
        if self._check:
            return ~checked
        if self._unchecked[shard].any():
            numbers, first = np.unique(shard, return_index=True)
            checked[first] = self._unchecked[numbers]
            self._unchecked[numbers] = False
        return checked

    def _upcoming(self, cursor: Cursor) -> list[int] | None:
        """The shards that this rank reads next; None if the last announcement still holds, or the shards need none."""
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
        rest = cursor.position + horizon - self._length
        after = self._orders.after(cursor.epoch) if rest > 0 else None
        return numbers if after is None else numbers + upcoming(shard, after, share, 0, rest)

    def _all_shards(self, cursor: Cursor) -> list[int]:
        """All shards by their next use; always in the same order where the cache holds only a part of them."""
        every = list(range(len(self._split.info.shards)))
        if self._split.origin is not None and self._split.info.bytes > self._split.origin.cache.bytes:
            return every
        return list(dict.fromkeys(self._shards_ahead(cursor, self._length) + every))


def _draws(augment: Augment | None, drawn: npt.NDArray[np.int64], seed: int, epoch: int) -> dict[str, npt.NDArray[Any]]:
    if augment is None:
        return {}
    return three_draws(drawn, seed, epoch) if augment == "three" else dict(draws(augment, drawn, seed, epoch))


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
                    config.draw.draws, self._shard, config.order, config.order_seed, number, config.block_shards
                )
        self._orders = {number: order for number, order in self._orders.items() if number in (epoch, epoch + 1)}
        return self._orders[epoch].result()

    def after(self, epoch: int) -> npt.NDArray[np.int64] | None:
        """The order of the epoch after `epoch`, which `of` was asked for last; None while it is being computed."""
        following = self._orders[epoch + 1]
        return following.result() if following.done() else None

    def close(self) -> None:
        self._thread.shutdown(cancel_futures=True)
