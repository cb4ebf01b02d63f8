import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.common.errors import UsageError
from shards.sampling.order import BLOCK_SHARDS, Order, Share, block_of_shard, epoch_order


def order_of(samples: int, seed: int = 0, epoch: int = 0, order: Order = "global", shards: int = 5) -> np.ndarray:
    """The order of an epoch over `samples` samples that lie in `shards` shards of nearly one length."""
    return epoch_order((np.arange(samples) * shards // max(samples, 1)).astype(np.int32), order, seed, epoch)


shapes = st.tuples(st.integers(1, 200), st.integers(1, 9), st.integers(1, 8))


@pytest.mark.parametrize(
    ("samples", "batch", "rank", "world", "drop_last", "steps"),
    [
        (10, 4, 0, 1, False, 3),
        (10, 4, 0, 1, True, 2),
        (10, 2, 0, 4, False, 2),
        (10, 2, 2, 4, False, 1),  # positions 2 and 6 only
        (3, 4, 3, 4, False, 0),
        (8, 2, 3, 4, True, 1),
        (1_281_167, 256, 7, 8, True, 625),
    ],
)
def test_steps_of_a_rank(samples: int, batch: int, rank: int, world: int, drop_last: bool, steps: int) -> None:
    assert Share(batch, rank, world, drop_last).steps(samples) == steps


def test_ranks_take_turns_by_position() -> None:
    order = np.arange(100, 120)
    assert Share(2, rank=1, world_size=3).take(order, 6).tolist() == [107, 110]


@given(shape=shapes, epoch=st.integers(0, 5))
def test_an_epoch_holds_each_sample_once_over_all_ranks(shape: tuple[int, int, int], epoch: int) -> None:
    samples, batch, world = shape
    order = order_of(samples, 0, epoch)
    seen: list[int] = []
    for rank in range(world):
        share = Share(batch, rank, world)
        for step in range(share.steps(samples)):
            ids = share.take(order, step * share.global_batch)
            assert 0 < len(ids) <= batch
            seen += ids.tolist()
    assert sorted(seen) == list(range(samples))


@given(shape=shapes)
def test_with_drop_last_all_ranks_take_full_batches_and_no_sample_twice(shape: tuple[int, int, int]) -> None:
    samples, batch, world = shape
    order = order_of(samples, 0, 0)
    shares = [Share(batch, rank, world, drop_last=True) for rank in range(world)]
    seen: list[int] = []
    for share in shares:
        assert share.steps(samples) == samples // (batch * world)
        for step in range(share.steps(samples)):
            ids = share.take(order, step * share.global_batch).tolist()
            assert len(ids) == batch
            seen += ids
    assert len(set(seen)) == len(seen) == samples // (batch * world) * batch * world


@given(world=st.sampled_from([1, 2, 4, 8]), step=st.integers(0, 4))
def test_a_global_batch_is_the_same_set_for_every_world_size(world: int, step: int) -> None:
    order = order_of(200, 1, 2)
    ranks = [Share(16 // world, rank, world).take(order, step * 16) for rank in range(world)]
    assert set(np.concatenate(ranks).tolist()) == set(order[step * 16 : step * 16 + 16].tolist())


@given(shape=shapes, other=shapes, step=st.integers(0, 10))
def test_another_world_size_takes_exactly_the_rest(
    shape: tuple[int, int, int], other: tuple[int, int, int], step: int
) -> None:
    samples, batch, world = shape
    position = min(step * batch * world, samples)
    order = order_of(samples, 0, 0)
    rest: list[int] = []
    for rank in range(other[2]):
        share = Share(other[1], rank, other[2])
        for i in range(share.steps(samples, position)):
            rest += share.take(order, position + i * share.global_batch).tolist()
    assert sorted(rest) == sorted(order[position:].tolist())


@given(samples=st.integers(0, 400), shards=st.integers(1, 60), epoch=st.integers(0, 9))
def test_blocks_hold_each_sample_once(samples: int, shards: int, epoch: int) -> None:
    assert sorted(order_of(samples, 0, epoch, "blocks", shards).tolist()) == list(range(samples))


def test_blocks_read_a_window_of_shards_before_the_next() -> None:
    shards, per_shard = 5 * BLOCK_SHARDS, 20
    order = order_of(shards * per_shard, 3, 4, "blocks", shards)
    block = block_of_shard(shards, 3, 4)[order // per_shard]
    assert (np.diff(block) >= 0).all()
    assert np.bincount(block).tolist() == [BLOCK_SHARDS * per_shard] * 5


@pytest.mark.parametrize("window", [1, 3, 40])
def test_another_window_mixes_as_many_shards(window: int) -> None:
    shard = np.repeat(np.arange(12), 10).astype(np.int32)
    order = epoch_order(shard, "blocks", 3, 4, window)
    together = min(window, 12)
    for first in range(0, 12, together):
        assert len(set(shard[order[10 * first : 10 * (first + together)]].tolist())) == together


def test_blocks_shuffle_inside_a_window_and_mix_its_shards() -> None:
    shards, per_shard = 2 * BLOCK_SHARDS, 200
    shard = order_of(shards * per_shard, 0, 0, "blocks", shards)[: BLOCK_SHARDS * per_shard] // per_shard
    # In a uniform shuffle two neighbours are of one shard with probability 1 / BLOCK_SHARDS: 200 of 3,200, +- 14.
    assert abs(int((np.diff(shard) == 0).sum()) - 200) < 70


def test_blocks_group_other_shards_in_the_next_epoch() -> None:
    assert not np.array_equal(block_of_shard(64, 0, 0), block_of_shard(64, 0, 1))


def test_every_epoch_has_an_order_of_its_own() -> None:
    orders = {tuple(order_of(50, 0, epoch).tolist()) for epoch in range(20)}
    assert len(orders) == 20


def test_without_shuffling_the_order_is_the_index() -> None:
    assert order_of(4, 9, 9, "index").tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("arguments", [(0, 0, 1), (4, 2, 2), (4, -1, 2), (4, 0, 0)])
def test_an_impossible_share_is_refused(arguments: tuple[int, int, int]) -> None:
    with pytest.raises(UsageError):
        Share(*arguments)
