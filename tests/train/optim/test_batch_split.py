"""The global batch is stated in images: shared by ranks, split into micro-batches, the same steps for all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.common.errors import UsageError
from train.optim.batch_split import BatchSplit, split_batch


@pytest.mark.parametrize(
    ("batch", "largest", "ranks", "expected"),
    [
        (64, 16, 1, BatchSplit(16, 4)),
        (64, 16, 2, BatchSplit(16, 2)),
        (64, 16, 8, BatchSplit(8, 1)),
        (64, 64, 1, BatchSplit(64, 1)),
        (64, 1000, 1, BatchSplit(64, 1)),
        (24, 16, 1, BatchSplit(12, 2)),
        (21, 8, 1, BatchSplit(7, 3)),
        (7, 2, 1, BatchSplit(1, 7)),
        (4096, 256, 8, BatchSplit(256, 2)),
    ],
)
def test_a_batch_is_split_into_the_fewest_equal_micro_batches(
    batch: int, largest: int, ranks: int, expected: BatchSplit
) -> None:
    assert split_batch(batch, largest, ranks) == expected


@given(images=st.integers(1, 200), ranks=st.integers(1, 8), largest=st.integers(1, 64))
def test_micro_batches_make_up_the_batch_and_fit(images: int, ranks: int, largest: int) -> None:
    fitting = max(size for size in range(1, largest + 1) if images % size == 0)
    if 2 * fitting < min(largest, images):
        with pytest.raises(UsageError, match=f"have {fitting}: choose another"):
            split_batch(images * ranks, largest, ranks)
    else:
        split = split_batch(images * ranks, largest, ranks)
        assert split.images == images
        assert split.micro_batch == fitting


def test_a_batch_that_ranks_cannot_share_is_refused() -> None:
    with pytest.raises(UsageError, match="--batch-size 64 cannot be shared by 3 ranks: choose a multiple"):
        split_batch(64, 16, 3)


@pytest.mark.parametrize(("batch", "largest", "ranks", "better"), [(502, 16, 2, 512), (7, 3, 1, 9), (94, 16, 2, 96)])
def test_a_batch_that_gives_tiny_micro_batches_is_refused_with_one_that_does_not(
    batch: int, largest: int, ranks: int, better: int
) -> None:
    with pytest.raises(UsageError, match=f"--batch-size {batch} is .*such as {better}$"):
        split_batch(batch, largest, ranks)
    assert split_batch(better, largest, ranks).micro_batch == largest


@pytest.mark.parametrize(
    ("micro_batches", "accumulate", "steps", "whole_steps"),
    [(8, 4, 2, 2), (9, 4, 3, 2), (3, 4, 1, 0), (4, 1, 4, 4), (7, 2, 4, 3)],
)
def test_the_micro_batches_left_over_are_a_step_unless_dropped(
    micro_batches: int, accumulate: int, steps: int, whole_steps: int
) -> None:
    assert BatchSplit(4, accumulate).steps(micro_batches) == steps
    assert BatchSplit(4, accumulate).steps(micro_batches, drop_last=True) == whole_steps


@pytest.mark.parametrize("images", [64, 100, 1_281_167])
def test_without_the_incomplete_step_all_rank_counts_take_the_same_steps(images: int) -> None:
    taken = set()
    for ranks in (1, 2, 4, 8):
        split = split_batch(64, 16, ranks)
        taken.add(split.steps(images // (split.micro_batch * ranks), drop_last=True))
    assert taken == {images // 64}
