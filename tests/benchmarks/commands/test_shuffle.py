import numpy as np
import pytest

from benchmarks.commands.shuffle import Options, buffered, measure, run
from shards.common.errors import UsageError
from shards.sampling.order import epoch_order

SHARD = np.repeat(np.arange(20), 50).astype(np.int32)


def test_an_order_that_shuffles_nothing_keeps_neighbours_together() -> None:
    mixing = measure(np.arange(1000), SHARD, 50)
    assert mixing.together == 1.0
    assert mixing.shards == 1.0


def test_a_uniform_order_brings_neighbours_together_by_chance_alone() -> None:
    mixing = measure(epoch_order(SHARD, "global", 0, 0), SHARD, 50)
    assert mixing.together == pytest.approx(49 / 999, abs=0.03)
    # Of 20 shards with equal chances, 50 draws miss one with probability (19 / 20) ** 50.
    assert mixing.shards == pytest.approx(20 * (1 - 0.95**50), abs=0.5)


def test_a_wider_window_mixes_more_shards() -> None:
    found = [measure(epoch_order(SHARD, "blocks", 0, 0, window), SHARD, 50).shards for window in (1, 4, 10)]
    assert found == sorted(found)
    assert found[0] == 1.0
    assert 3.5 < found[1] <= 4.0


def test_a_buffer_gives_each_sample_once_and_seldom_far_from_where_it_came() -> None:
    order = buffered(SHARD, 100, 3)
    assert sorted(order.tolist()) == list(range(1000))
    assert 1 < measure(order, SHARD, 50).shards < 8


def test_the_table_has_a_row_for_each_order(capsys: pytest.CaptureFixture[str]) -> None:
    run(Options(samples=3000, shard_size=100, batch=32))
    lines = capsys.readouterr().out.splitlines()
    assert [line[:6] for line in lines[2:-1]] == ["global", *["blocks"] * 5, "buffer", "index "]


def test_a_batch_larger_than_the_split_is_refused() -> None:
    with pytest.raises(UsageError, match="--batch-size must be from 2 to --samples"):
        Options(samples=10, batch=11)
