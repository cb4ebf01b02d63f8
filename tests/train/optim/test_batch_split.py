"""The global batch is stated in images: shared by ranks, computed in portions, the same steps for all."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.common.errors import UsageError
from train.config import Config
from train.optim.batch_split import Portions, portions, steps_per_epoch
from train.ranks.distributed import World


@pytest.mark.parametrize(
    ("batch", "largest", "ranks", "expected"),
    [
        (64, 16, 1, Portions(16, 4)),
        (64, 16, 2, Portions(16, 2)),
        (64, 16, 8, Portions(8, 1)),
        (64, 64, 1, Portions(64, 1)),
        (64, 1000, 1, Portions(64, 1)),
        (24, 16, 1, Portions(12, 2)),
        (7, 3, 1, Portions(1, 7)),
        (4096, 256, 8, Portions(256, 2)),
        (64, "auto", 1, Portions(16, 4)),
    ],
)
def test_a_batch_is_divided_into_the_fewest_equal_portions(
    batch: int, largest: int, ranks: int, expected: Portions
) -> None:
    config = Config(Path("unused"), batch=batch, micro_batch=largest)
    assert portions(config, World(0, ranks)) == expected


@given(share=st.integers(1, 200), ranks=st.integers(1, 8), largest=st.integers(1, 64))
def test_portions_make_up_the_batch_and_fit(share: int, ranks: int, largest: int) -> None:
    portion = portions(Config(Path("unused"), batch=share * ranks, micro_batch=largest), World(0, ranks))
    assert portion.images * ranks == share * ranks
    assert portion.micro_batch <= largest
    fewer = [count for count in range(1, portion.accumulate) if share % count == 0]
    assert all(share // count > largest for count in fewer)


def test_a_batch_that_ranks_cannot_share_is_refused() -> None:
    with pytest.raises(UsageError, match="--batch 64 cannot be shared by 3 ranks: choose a multiple"):
        portions(Config(Path("unused")), World(0, 3))


@pytest.mark.parametrize("images", [64, 100, 1_281_167])
def test_without_the_incomplete_step_all_rank_counts_take_the_same_steps(images: int) -> None:
    config = Config(Path("unused"), batch=64)
    taken = set()
    for ranks in (1, 2, 4, 8):
        portion = portions(config, World(0, ranks))
        micro_batches = images // (portion.micro_batch * ranks)
        taken.add(steps_per_epoch(micro_batches, portion.accumulate, drop_last=True))
    assert taken == {images // 64}
