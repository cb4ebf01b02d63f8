"""Randomness as data: uniform numbers that are a pure function of (seed, stream, id).

Nothing here has a state. The number that belongs to a sample is computed from the sample's id, so any rank, at any
step, after any restart, computes the same number. The mixing function is fixed arithmetic on 64-bit words; numpy's own
generators may change their streams between versions, which would change the bytes of shards and the order of a resumed
epoch.

The construction is a counter-based generator (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011) with
the output function of SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014;
constants: Stafford's variant 13).
"""

import functools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64] | np.uint64

_MASK = (1 << 64) - 1
_GAMMA = 0x9E3779B97F4A7C15
_MULTIPLY_1 = 0xBF58476D1CE4E5B9
_MULTIPLY_2 = 0x94D049BB133111EB
# For `word`: of its arguments' type, so that a compiled loop stays in it too.
_ONE, _STEP, _FACTOR_1, _FACTOR_2 = (np.uint64(each) for each in (1, _GAMMA, _MULTIPLY_1, _MULTIPLY_2))
_BY_30, _BY_27, _BY_31 = np.uint64(30), np.uint64(27), np.uint64(31)


def bits(ids: npt.ArrayLike, seed: int, *stream: int) -> npt.NDArray[np.uint64]:
    """64 uniform bits for each id.

    `ids`: non-negative integers of any shape; the result has that shape. `seed` and `stream` (say,
    an epoch and a purpose) name independent sequences; each is taken modulo 2**64.
    """
    return _bits(ids, *(np.uint64(key) for key in _keys(seed, stream)))


def uniform(ids: npt.ArrayLike, seed: int, *stream: int) -> npt.NDArray[np.float64]:
    """A float64 in [0, 1) for each id, on a grid of 2**-53."""
    return (bits(ids, seed, *stream) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def integers(ids: npt.ArrayLike, bound: npt.ArrayLike, seed: int, *stream: int) -> npt.NDArray[np.int64]:
    """An integer in [0, bound) for each id; `bound` (at least 1, below 2**31) broadcasts against `ids`.

    The multiply-shift method (Lemire, "Fast random integer generation in an interval", 2019) without
    its rejection step: with 32 bits the bias is below bound / 2**32, which no image size can show.
    """
    return _below(bits(ids, seed, *stream), bound)


def integers_of_each(
    ids: npt.NDArray[np.int64], bounds: npt.ArrayLike, seed: int, streams: Sequence[tuple[int, ...]]
) -> npt.NDArray[np.int64]:
    """`integers` of several streams at once, which takes little longer than of one: (n, streams).

    `ids` (n,); `bounds` broadcasts against (n, streams).
    """
    first, second = keys(seed, streams).T
    return _below(_bits(ids[:, None], first, second), bounds)


def keys(seed: int, streams: Sequence[tuple[int, ...]]) -> npt.NDArray[np.uint64]:
    """The keys of several streams, for `word`: (streams, 2)."""
    return np.array([_keys(seed, stream) for stream in streams], np.uint64)


def word(counter: Words, first: Words, second: Words) -> Words:
    """The 64 bits that belong to a counter and two keys: arithmetic modulo 2**64.

    Of arrays here, and of single numbers where a loop over samples is compiled (shards/sampling/windows.py).
    """
    x = (counter + _ONE) * _STEP + first
    x = (x ^ (x >> _BY_30)) * _FACTOR_1
    x = (x ^ (x >> _BY_27)) * _FACTOR_2
    # The second round separates sequences whose keys differ by a multiple of the increment.
    x = x ^ (x >> _BY_31) ^ second
    x = (x ^ (x >> _BY_30)) * _FACTOR_1
    x = (x ^ (x >> _BY_27)) * _FACTOR_2
    return x ^ (x >> _BY_31)


def permutation(n: int, seed: int, *stream: int) -> npt.NDArray[np.int64]:
    """A permutation of range(n): the ids in the order of their 64 bits, ties (p < n**2 / 2**65) by id."""
    return np.argsort(bits(np.arange(n), seed, *stream), kind="stable")


def _bits(ids: npt.ArrayLike, first: Words, second: Words) -> npt.NDArray[np.uint64]:
    with np.errstate(over="ignore"):
        return np.asarray(word(np.asarray(ids).astype(np.uint64), first, second))


def _below(random: npt.NDArray[np.uint64], bound: npt.ArrayLike) -> npt.NDArray[np.int64]:
    high = random >> np.uint64(32)
    return ((high * np.asarray(bound).astype(np.uint64)) >> np.uint64(32)).astype(np.int64)


@functools.lru_cache(1024)  # all batches of an epoch ask for the same ones
def _keys(seed: int, stream: tuple[int, ...]) -> tuple[int, int]:
    """The keys of both rounds."""
    return _key(seed, stream), _key(seed ^ _MASK, stream)


def _key(seed: int, stream: tuple[int, ...]) -> int:
    """Folds a seed and a stream of any length into one 64-bit word, order and length included."""
    key = _mix_int(seed & _MASK)
    for part in stream:
        key = _mix_int((key * 3 + (part & _MASK) + _GAMMA) & _MASK)
    return key


def _mix_int(x: int) -> int:
    x = (x + _GAMMA) & _MASK
    x = ((x ^ (x >> 30)) * _MULTIPLY_1) & _MASK
    x = ((x ^ (x >> 27)) * _MULTIPLY_2) & _MASK
    return x ^ (x >> 31)
