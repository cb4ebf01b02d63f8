"""Which samples an epoch holds: weighted, repeated, or each once."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from shards.common.errors import UsageError
from shards.sampling.draw import Draw, _copies, _log, balanced_weights
from shards.sampling.order import Order, Share, epoch_order

weights = st.lists(st.sampled_from([0.0, 0.25, 1.0, 3.0, 1e-6]), min_size=2, max_size=60).filter(lambda w: sum(w) > 0)


def drawn(draw: Draw, samples: int, epoch: int = 0, seed: int = 0, order: Order = "global") -> np.ndarray:
    return draw.draws(np.zeros(samples, np.int32), order, seed, epoch, 1)


def chances(values: Any) -> np.ndarray:
    return np.array(values, np.float64)


@pytest.mark.parametrize("order", ["global", "blocks", "index"])
def test_by_default_an_epoch_is_the_order_of_the_split(order: Order) -> None:
    shard = (np.arange(60) // 10).astype(np.int32)
    assert (Draw().draws(shard, order, 3, 2, 2) == epoch_order(shard, order, 3, 2, 2)).all()


@given(weights, st.integers(1, 200), st.integers(0, 3))
def test_only_samples_with_a_weight_are_drawn_and_each_draw_is_another(
    values: list[float], count: int, epoch: int
) -> None:
    draws = drawn(Draw(chances(values), count), len(values), epoch)
    assert len(draws) == count == len(set(draws.tolist()))
    assert all(values[draw % len(values)] > 0 for draw in draws)


@given(weights)
def test_without_replacement_each_sample_with_a_weight_comes_once(values: list[float]) -> None:
    possible = np.flatnonzero(values)
    draws = drawn(Draw(chances(values), len(possible), replacement=False), len(values))
    assert sorted(draws) == possible.tolist()


def test_draws_follow_the_weights_as_torchs_sampler_does() -> None:
    values, count = [1.0, 0.0, 2.0, 5.0, 0.5], 85_000
    ours = np.bincount(drawn(Draw(chances(values), count), 5) % 5, minlength=5)
    torchs = np.bincount(
        list(torch.utils.data.WeightedRandomSampler(values, count, generator=torch.Generator())), minlength=5
    )
    expected = count * np.array(values) / sum(values)
    deviation = np.sqrt(expected * (1 - np.array(values) / sum(values)))
    assert (np.abs(ours - expected) <= 4 * deviation).all()
    assert (np.abs(torchs - expected) <= 4 * deviation).all()


def test_draws_without_replacement_follow_the_weights_as_torchs_sampler_does() -> None:
    # The first two of four samples: P(i, j) = w_i / sum * w_j / (sum - w_i).
    values, epochs = [1.0, 2.0, 3.0, 4.0], 6000
    draw = Draw(chances(values), 2, replacement=False)
    pairs = [tuple(drawn(draw, 4, epoch).tolist()) for epoch in range(epochs)]
    generator = torch.Generator().manual_seed(0)
    many = torch.multinomial(torch.tensor(values).expand(epochs, 4), 2, replacement=False, generator=generator)
    theirs = [(int(a), int(b)) for a, b in many]
    for i in range(4):
        for j in set(range(4)) - {i}:
            chance = values[i] / 10 * values[j] / (10 - values[i])
            allowed = 4.5 * math.sqrt(epochs * chance * (1 - chance))
            assert abs(pairs.count((i, j)) - epochs * chance) <= allowed
            assert abs(theirs.count((i, j)) - epochs * chance) <= allowed


def test_each_epoch_and_seed_draws_others() -> None:
    draw = Draw(chances([1.0] * 100))
    assert len({tuple(drawn(draw, 100, epoch, seed)) for epoch in range(3) for seed in range(3)}) == 9


def test_the_draws_are_the_same_on_every_machine() -> None:
    values = chances([1, 2, 3, 0, 5, 6, 7])
    assert drawn(Draw(values, 8), 7, epoch=1).tolist() == [4, 11, 5, 12, 6, 19, 13, 18]
    assert drawn(Draw(values, 6, replacement=False), 7, epoch=1).tolist() == [4, 6, 5, 2, 1, 0]


def test_balanced_weights_make_classes_equally_likely() -> None:
    labels = np.array([0] * 90 + [2] * 9 + [3], np.int32)
    counts = np.bincount(labels[drawn(Draw(balanced_weights(labels), 3000), 100) % 100], minlength=4)
    assert counts[1] == 0
    assert (np.abs(counts[[0, 2, 3]] - 1000) < 120).all()


@given(st.integers(1, 1500), st.integers(2, 4), st.integers(1, 4), st.integers(1, 5))
def test_copies_go_to_different_ranks_of_one_global_batch(samples: int, repeats: int, world: int, batch: int) -> None:
    draw = Draw(repeats=repeats)
    draws = drawn(draw, samples)
    assert len(draws) == draw.length(samples) == (samples // 256 * 256 or samples)
    assert len(set(draws.tolist())) == len(draws)
    copies = np.arange(len(draws)) % repeats
    assert (draws // samples == copies).all()
    order = epoch_order(np.zeros(samples, np.int32), "global", 0, 0)
    assert (draws % samples == order[np.arange(len(draws)) // repeats]).all()
    if world >= repeats:
        for position in range(0, len(draws) - world * batch, world * batch):
            for rank in range(world):
                ids = Share(batch, rank, world).take(draws, position) % samples
                assert len(set(ids.tolist())) == len(ids)


def test_an_epoch_of_repeats_is_that_of_timms_sampler() -> None:
    # timm's RepeatAugSampler over 1,000 samples, 3 repeats, 4 ranks: each rank gets 1000 // 256 * 256 / 4 views.
    samples, world = 1000, 4
    draws = drawn(Draw(repeats=3), samples)
    order = epoch_order(np.zeros(samples, np.int32), "global", 0, 0)
    repeated = np.repeat(order, 3)
    for rank in range(world):
        assert (draws[rank::world] % samples == repeated[rank::world][: samples // 256 * 256 // world]).all()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"weights": chances([1, 1]), "repeats": 2}, "do not go together"),
        ({"num_samples": 5}, "num_samples is for weights"),
        ({"replacement": False}, "replacement=False is for weights"),
        (
            {"weights": chances([1, 0, 1]), "num_samples": 3, "replacement": False},
            "the 2 samples whose weight is not 0",
        ),
        ({"weights": chances([1, 0, 1]), "replacement": False}, "num_samples=3"),
    ],
)
def test_what_cannot_be_drawn_is_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        Draw(**options)


@given(st.lists(st.integers(0, 5), max_size=40))
def test_copies_count_what_came_before(ids: list[int]) -> None:
    assert _copies(np.array(ids, np.int64)).tolist() == [ids[:place].count(each) for place, each in enumerate(ids)]


@given(st.floats(2.0**-54, 1.0))
def test_the_logarithm_is_that_of_the_library_to_its_last_digits(value: float) -> None:
    assert _log(np.array([value]))[0] == pytest.approx(math.log(value), rel=1e-13, abs=1e-15)
