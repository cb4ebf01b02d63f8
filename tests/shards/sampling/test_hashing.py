import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.sampling.hashing import bits, integers, integers_of_each, permutation, uniform


def test_the_numbers_are_fixed_for_ever() -> None:
    # Other values would change every existing order and crop: a new format version, not a change of this test.
    assert bits([0, 1, 2], 0).tolist() == [412650797283356991, 11774009927851426905, 2992946883256095155]
    assert bits([5], 7, 3, 1).tolist() == [6415446414398409159]
    assert permutation(10, 0, 1).tolist() == [1, 0, 2, 4, 3, 6, 5, 8, 7, 9]


@given(n=st.integers(0, 500), seed=st.integers(0, 2**64 - 1), epoch=st.integers(0, 10_000))
def test_a_permutation_holds_every_id_once(n: int, seed: int, epoch: int) -> None:
    assert sorted(permutation(n, seed, epoch).tolist()) == list(range(n))


def test_a_number_does_not_depend_on_the_others_asked_for() -> None:
    ids = np.array([9, 3, 1_281_166])
    assert np.array_equal(bits(ids, 1, 2), [bits(i, 1, 2) for i in ids])


@pytest.mark.parametrize("other", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0), (0, 0, 0, 0)])
def test_every_part_of_the_stream_makes_other_numbers(other: tuple[int, ...]) -> None:
    ids = np.arange(20_000)
    first, second = uniform(ids, 0, 0, 0), uniform(ids, *other)
    # The standard error of a correlation of 20,000 independent pairs is 0.007.
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.035


def test_uniform_fills_the_unit_interval_evenly() -> None:
    counts, _ = np.histogram(uniform(np.arange(100_000), 3, 4), bins=100, range=(0, 1))
    # Chi-squared with 99 degrees of freedom: above 160 once in ten thousand.
    assert ((counts - 1000) ** 2 / 1000).sum() < 160


def test_neighbouring_ids_are_uncorrelated() -> None:
    numbers = uniform(np.arange(50_001), 0, 0)
    assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.025


@given(bound=st.integers(1, 5000), seed=st.integers(0, 100))
def test_integers_stay_below_their_bound(bound: int, seed: int) -> None:
    drawn = integers(np.arange(200), bound, seed)
    assert drawn.min() >= 0
    assert drawn.max() < bound


def test_integers_reach_every_value() -> None:
    assert set(integers(np.arange(1000), 33, 0).tolist()) == set(range(33))


def test_integers_of_several_streams_are_those_of_each() -> None:
    ids, bounds = np.arange(50) ** 4, np.arange(1, 101).reshape(50, 2)
    found = integers_of_each(ids, bounds, 3, [(7, 1), (7, 2)])
    assert found.tolist() == np.stack([integers(ids, bounds[:, i], 3, 7, i + 1) for i in (0, 1)], axis=-1).tolist()
