"""How the images of an optimizer step are split: evenly over the ranks, and on each rank into micro-batches."""

import math
from dataclasses import dataclass

from shards.common.errors import UsageError


@dataclass(frozen=True)
class BatchSplit:
    """Each rank computes `accumulate` micro-batches of `micro_batch` images in an optimizer step."""

    micro_batch: int
    accumulate: int

    @property
    def images(self) -> int:
        """Images of one rank in a full optimizer step."""
        return self.micro_batch * self.accumulate

    def steps(self, micro_batches: int, drop_last: bool = False) -> int:
        """Optimizer steps of an epoch: the micro-batches left over at its end are a shorter step, unless dropped."""
        return micro_batches // self.accumulate if drop_last else math.ceil(micro_batches / self.accumulate)


def split_batch(batch: int, largest: int, ranks: int) -> BatchSplit:
    """The fewest equal micro-batches of at most `largest` images that make up a rank's part of `batch` images.

    So the images of a step are the same on any number of ranks. Raises UsageError where the ranks cannot have equal
    parts, or equal micro-batches would be less than half as large as they may be: 251 images, for instance, divide only
    into 251 micro-batches of one image.
    """
    images, rest = divmod(batch, ranks)
    if rest:
        raise UsageError(f"--batch-size {batch} cannot be shared by {ranks} ranks: choose a multiple of them")
    accumulate = math.ceil(images / largest)
    while images % accumulate:
        accumulate += 1
    micro_batch = images // accumulate
    if 2 * micro_batch < min(largest, images):
        rounded = ranks * largest * math.ceil(images / largest)
        raise UsageError(
            f"--batch-size {batch} is {images} images on each rank, whose largest equal micro-batches of at most "
            f"{largest} images have {micro_batch}: choose another --micro-batch, or another --batch-size, such as "
            f"{rounded}"
        )
    return BatchSplit(micro_batch, accumulate)
