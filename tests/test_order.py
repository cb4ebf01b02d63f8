import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.errors import UsageError
from shards.order import Share, epoch_order

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
    order = epoch_order(samples, 0, epoch, shuffle=True)
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
    order = epoch_order(samples, 0, 0, shuffle=True)
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
    order = epoch_order(200, 1, 2, shuffle=True)
    ranks = [Share(16 // world, rank, world).take(order, step * 16) for rank in range(world)]
    assert set(np.concatenate(ranks).tolist()) == set(order[step * 16 : step * 16 + 16].tolist())


@given(shape=shapes, other=shapes, step=st.integers(0, 10))
def test_another_world_size_takes_exactly_the_rest(
    shape: tuple[int, int, int], other: tuple[int, int, int], step: int
) -> None:
    samples, batch, world = shape
    position = min(step * batch * world, samples)
    order = epoch_order(samples, 0, 0, shuffle=True)
    rest: list[int] = []
    for rank in range(other[2]):
        share = Share(other[1], rank, other[2])
        for i in range(share.steps(samples, position)):
            rest += share.take(order, position + i * share.global_batch).tolist()
    assert sorted(rest) == sorted(order[position:].tolist())


def test_every_epoch_has_an_order_of_its_own() -> None:
    orders = {tuple(epoch_order(50, 0, epoch, shuffle=True).tolist()) for epoch in range(20)}
    assert len(orders) == 20


def test_without_shuffling_the_order_is_the_index() -> None:
    assert epoch_order(4, 9, 9, shuffle=False).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("arguments", [(0, 0, 1), (4, 2, 2), (4, -1, 2), (4, 0, 0)])
def test_an_impossible_share_is_refused(arguments: tuple[int, int, int]) -> None:
    with pytest.raises(UsageError):
        Share(*arguments)
