"""The planner: batches that are planned together are those that are planned one by one."""

import contextlib

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shards.dataset import Split
from shards.feed.plan import Planner, SamplingConfig
from shards.sampling.batch import Cursor, PlannedBatch
from shards.sampling.order import Share

SAMPLES = 29


def planned(split: Split, share: Share, cursor: Cursor, together: int, samples: int) -> list[PlannedBatch]:
    """Batches from a cursor on, until they hold so many samples."""
    config = SamplingConfig(share, 0, 1, "global", "random", True, 40, 32, augment="trivial")
    batches: list[PlannedBatch] = []
    with contextlib.closing(Planner(split, config, cursor, check=False, together=together)) as planner:
        while sum(map(len, batches)) < samples:
            batches.append(planner.next())
    return batches


@given(
    batch_size=st.integers(1, 5),
    ranks=st.integers(1, 3).flatmap(lambda size: st.tuples(st.integers(0, size - 1), st.just(size))),
    drop_last=st.booleans(),
    together=st.integers(2, 9),
    position=st.integers(0, 14),
)
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_batches_that_are_planned_together_hold_the_same_samples_in_the_same_order(
    small_split: Split, batch_size: int, ranks: tuple[int, int], drop_last: bool, together: int, position: int
) -> None:
    share = Share(batch_size, *ranks, drop_last)
    wide = planned(small_split, share, Cursor(3, position), together, 2 * SAMPLES)
    single = planned(small_split, share, Cursor(3, position), 1, sum(map(len, wide)))

    def joined(batches: list[PlannedBatch]) -> list[np.ndarray]:
        columns = [
            (b.ids, b.labels, b.windows.anchor, b.windows.mirror, b.ranges.offset, b.ranges.crc32, *b.draws.values())
            for b in batches
        ]
        return [np.concatenate(column) for column in zip(*columns, strict=True)]

    for ours, theirs in zip(joined(wide), joined(single), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    by_epoch = {batch.cursor.epoch for batch in wide}
    assert all(len(batch) <= together * batch_size for batch in wide)
    assert by_epoch == {batch.cursor.epoch for batch in single}
