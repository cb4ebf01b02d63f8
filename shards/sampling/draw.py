"""Which samples an epoch holds, and how often each: by default each once.

A *draw* is a sample's place in an epoch's order: the number `sample id + samples * copy`, where `copy` counts how often
the epoch held the sample before. Crops, flips and policies are drawn by it, so each copy of a sample looks different.
The draws of an epoch are a table that follows from (seed, epoch), so any position can be entered, on any number of
ranks.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from shards.common.errors import UsageError
from shards.sampling.hashing import bits, permutation
from shards.sampling.order import ORDER, Order, epoch_order

Int64Array = npt.NDArray[np.int64]
Float64Array = npt.NDArray[np.float64]

# An epoch of repeated samples is a multiple of this many positions, as timm's RepeatAugSampler rounds it.
ROUND = 256
_UNIFORM_BITS = 53


@dataclass(frozen=True, eq=False)
class Draw:
    """How an epoch draws its samples.

    `weights`: the chances of the samples, (n,) float64, in any unit; None: all are equal. `num_samples`: the positions
    of an epoch; None: as many as there are samples. `replacement`: a sample may come more than once. `repeats`: each
    sample that an epoch holds comes so many times in a row, which with several ranks means on different ones.
    """

    weights: Float64Array | None = None
    num_samples: int | None = None
    replacement: bool = True
    repeats: int = 1
    mixture: tuple[tuple[int, int], ...] = ()
    """Of a mix: how many samples each of its parts has, and how many of them an epoch takes."""

    def __post_init__(self) -> None:
        if self.mixture and (self.weights is not None or self.repeats > 1):
            raise UsageError("a mix has neither weights nor num_repeats")
        if self.weights is not None and self.repeats > 1:
            raise UsageError("weights and num_repeats do not go together: choose one")
        if self.weights is None and self.num_samples is not None:
            raise UsageError("num_samples is for weights: without them an epoch holds each sample once")
        if self.weights is None and not self.replacement:
            raise UsageError("replacement=False is for weights: without them no sample comes twice")
        if self.weights is not None and not self.replacement:
            possible = np.count_nonzero(self.weights)
            if self.length(len(self.weights)) > possible:
                raise UsageError(
                    f"without replacement an epoch can hold the {possible} samples whose weight is not 0, and "
                    f"not num_samples={self.length(len(self.weights))}"
                )

    def length(self, samples: int) -> int:
        """The positions of an epoch of a split of so many samples."""
        if self.num_samples is not None:
            return self.num_samples
        if self.mixture:
            return sum(take for _, take in self.mixture)
        return samples if self.repeats == 1 else samples // ROUND * ROUND or samples

    def draws(self, shard: npt.NDArray[np.int32], order: Order, seed: int, epoch: int, block_shards: int) -> Int64Array:
        """The draw at each position of an epoch, for samples that lie in the shards `shard` (n,)."""
        samples = len(shard)
        if self.mixture:
            return _mixed(self.mixture, seed, epoch)
        if self.weights is None:
            ids = epoch_order(shard, order, seed, epoch, block_shards)
            if self.repeats == 1:
                return ids
            position = np.arange(self.length(samples))
            return ids[position // self.repeats] + samples * (position % self.repeats)
        if not self.replacement:
            return _without_replacement(self.weights, seed, epoch)[: self.length(samples)]
        ids = np.searchsorted(
            self._thresholds, bits(np.arange(self.length(samples)), seed, epoch, ORDER) >> np.uint64(11), "right"
        )
        return ids + samples * _copies(ids)

    @cached_property
    def identity(self) -> int:
        """A number that differs for what draws other samples; 0 for each sample once."""
        if self.weights is None and self.repeats == 1 and not self.mixture:
            return 0
        said = f"{self.num_samples} {self.replacement} {self.repeats} {self.mixture}".encode()
        digest = hashlib.sha256(said + (b"" if self.weights is None else self.weights.astype("<f8").tobytes()))
        return int.from_bytes(digest.digest()[:6], "little")

    @cached_property
    def _thresholds(self) -> npt.NDArray[np.uint64]:
        """The cumulated weights, scaled to the whole numbers that uniform bits are compared with."""
        assert self.weights is not None
        cumulated = np.cumsum(self.weights)
        thresholds: npt.NDArray[np.uint64] = np.floor(cumulated / cumulated[-1] * 2.0**_UNIFORM_BITS).astype(np.uint64)
        # Rounding must not leave room behind the last sample that has a weight.
        thresholds[cumulated == cumulated[-1]] = np.uint64(1 << _UNIFORM_BITS)
        return thresholds


EACH_ONCE = Draw()


def balanced_weights(labels: npt.NDArray[np.int32]) -> Float64Array:
    """Weights (n,) with which each class is as likely as any other."""
    weights: Float64Array = 1.0 / np.bincount(labels)[labels]
    return weights


def _mixed(mixture: tuple[tuple[int, int], ...], seed: int, epoch: int) -> Int64Array:
    """Of each part a random choice, all in random order."""
    ids, start = [], 0
    for part, (samples, take) in enumerate(mixture):
        ids.append(start + permutation(samples, seed, epoch, ORDER, part)[:take])
        start += samples
    together = np.concatenate(ids)
    return together[permutation(len(together), seed, epoch, ORDER)]


def _without_replacement(weights: Float64Array, seed: int, epoch: int) -> Int64Array:
    """The ids of the samples with a weight, in the order in which they are drawn one by one.

    The method of exponential keys (Efraimidis and Spirakis, "Weighted random sampling with a reservoir", 2006).
    """
    possible = np.flatnonzero(weights)
    number = (bits(possible, seed, epoch, ORDER) >> np.uint64(11)).astype(np.float64) + 0.5  # never 0
    keys = -_log(number * 2.0**-_UNIFORM_BITS) / weights[possible]
    return possible[np.argsort(keys, kind="stable")].astype(np.int64)


def _log(values: Float64Array) -> Float64Array:
    """The natural logarithm, from operations that every processor rounds alike: a library's differ in the last bit.

    log m = 2 artanh((m - 1) / (m + 1)) as a series, for m from 0.7 to 1.4; relative error below 1e-14.
    """
    mantissa, exponent = np.frexp(values)
    low = mantissa < np.sqrt(0.5)
    mantissa, exponent = np.where(low, mantissa * 2, mantissa), exponent - low
    part = (mantissa - 1) / (mantissa + 1)
    square, total = part * part, np.zeros_like(part)
    for power in range(23, 0, -2):
        total = total * square + 1.0 / power
    result: Float64Array = 2 * part * total + exponent * 0.6931471805599453
    return result


def _copies(ids: Int64Array) -> Int64Array:
    """How often each id stands before its place in `ids`, (n,)."""
    by_id = np.argsort(ids, kind="stable")
    ordered = ids[by_id]
    first = np.concatenate([[True], ordered[1:] != ordered[:-1]])[: len(ids)]
    start = np.maximum.accumulate(np.where(first, np.arange(len(ids)), 0))
    copies = np.empty(len(ids), np.int64)
    copies[by_id] = np.arange(len(ids)) - start
    return copies
