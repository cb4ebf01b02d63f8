"""Ranks meet in a part of a store that is new, whatever ranks before them have left in it."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from torch._C._distributed_c10d import HashStore, Store

from shards.common.errors import ShardfeedError
from train.ranks.rendezvous import rendezvous

SIZE = 3


def meet_all(store: Store, ranks: Sequence[int] = range(SIZE)) -> list[Store]:
    with ThreadPoolExecutor(len(ranks)) as pool:
        return list(pool.map(lambda rank: rendezvous(store, rank, SIZE, timedelta(seconds=30)), ranks))


def test_all_ranks_have_the_same_part() -> None:
    first, second, third = meet_all(HashStore())
    first.set("key", "value")
    assert second.get("key") == third.get("key") == b"value"


def test_ranks_that_start_again_do_not_see_what_was_there() -> None:
    store = HashStore()
    meet_all(store)[1].set("address", "of a rank that is gone")
    for part in meet_all(store):
        assert not part.check(["address"])


def test_a_rank_that_died_while_it_waited_is_not_taken_for_the_one_that_replaces_it() -> None:
    store = HashStore()
    store.set("here/2", "a dead rank's name")
    with ThreadPoolExecutor(SIZE) as pool:
        waiting = [pool.submit(rendezvous, store, rank, SIZE, timedelta(seconds=30)) for rank in (0, 1)]
        store.wait(["called/a dead rank's name"], timedelta(seconds=30))
        assert not waiting[0].done()
        parts = [pool.submit(rendezvous, store, 2, SIZE).result(), *(each.result() for each in waiting)]
    parts[0].set("key", "value")
    assert all(part.check(["key"]) for part in parts)


@pytest.mark.parametrize(
    ("rank", "message"),
    [(0, r"rank 0 waited .* ranks that did not come: \[1, 2\]"), (1, r"rank 1 waited .* for rank 0")],
)
def test_a_rank_that_nobody_joins_says_whom_it_waited_for(rank: int, message: str) -> None:
    with pytest.raises(ShardfeedError, match=message):
        rendezvous(HashStore(), rank, SIZE, timedelta(milliseconds=50))
