"""A batch before any byte of it is read: which samples, where their bytes lie, what is cut out of them.

Everything here is a value. `shards/feed/plan.py` makes it; the sample reader, the decoder and the finisher read it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from shards.sampling.crops import CropWindows
from shards.sampling.order import Share
from shards.sampling.views import PlannedViews


@dataclass(frozen=True)
class Cursor:
    """A place in the endless run of epochs: the next global batch starts at `position` of epoch `epoch`."""

    epoch: int
    position: int

    def after(self, share: Share, samples: int) -> "Cursor":
        """The cursor after one step; the start of the next epoch where this one has no further step."""
        following = Cursor(self.epoch, self.position + share.global_batch)
        return following if share.steps(samples, following.position) else Cursor(self.epoch + 1, 0)


# In place of a checksum, which is never negative.
NOT_COMPARED = -1


@dataclass(frozen=True)
class ByteRanges:
    """The bytes to read of n samples."""

    shard: npt.NDArray[np.int32]
    offset: npt.NDArray[np.int64]
    size: npt.NDArray[np.int64]
    crc32: npt.NDArray[np.int64]
    """What the CRC-32 of these bytes must be; `NOT_COMPARED` where it may be anything."""

    def __len__(self) -> int:
        return len(self.shard)


@dataclass(frozen=True)
class PixelRows:
    """Where the rows of n crop windows lie in the bytes read of samples that are stored decoded."""

    first: npt.NDArray[np.int64]
    """The byte at which the first row begins."""
    width: npt.NDArray[np.int64]
    """Pixels of a whole row, of which the crop window is a part."""


@dataclass(frozen=True)
class PlannedBatch:
    """One batch of one rank, n samples, or several in a row that are decoded together."""

    cursor: Cursor
    ids: npt.NDArray[np.int64]
    """(n,): rows of the split's index."""
    drawn: npt.NDArray[np.int64]
    """(n,): the draws (see draw.py) that crop windows, flips and policies follow from."""
    labels: npt.NDArray[np.int64]
    """(n,)"""
    windows: CropWindows
    size: int
    """Side of the square output, in pixels."""
    ranges: ByteRanges
    rows: PixelRows | None = None
    """Of samples that are stored decoded."""
    draws: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    """What `draws` of shards/sampling/policies.py gives, or `three_draws` of colour.py; empty without augmentation."""
    views: PlannedViews | None = None
    """Several views of each sample; `windows` are then the regions that hold them, and `size` is of no use."""
    upcoming: list[int] | None = None
    """The shards that the batches after this one read, by first use, where that is to be announced anew."""

    def __len__(self) -> int:
        return len(self.ids)
