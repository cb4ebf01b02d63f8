"""The plan: which rows go into which shard, whatever is made when, and what it says where two plans differ."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.job.plan import Plan, shard_range, windowed
from preprocess.job.slices import Slice
from shards.common.errors import ShardfeedError, UsageError
from shards.format.manifest import Settings


def plan(rows: int = 10, shard_size: int = 4, seed: int = 0, split: str = "train", window: int | None = None) -> Plan:
    shaping = Settings(shard_size=shard_size, seed=seed, window=window)
    return Plan("somewhere", "ab" * 32, {split: rows}, shaping, "0.1", {"pillow": "12"})


WINDOWS = st.none() | st.integers(1, 800)


@settings(deadline=None)
@given(rows=st.integers(1, 3000), shard_size=st.integers(1, 700), seed=st.integers(0, 2**40), window=WINDOWS)
def test_every_row_is_in_exactly_one_shard(rows: int, shard_size: int, seed: int, window: int | None) -> None:
    made = plan(rows, shard_size, seed, window=window)
    parts = [made.rows("train", number) for number in range(made.shards("train"))]
    assert sorted(np.concatenate(parts).tolist()) == list(range(rows))


@given(rows=st.integers(1, 10**7), shard_size=st.integers(1, 10**5))
def test_shards_are_as_few_as_can_be_and_differ_by_at_most_one(rows: int, shard_size: int) -> None:
    shards = plan(rows, shard_size).shards("train")
    assert shards == -(-rows // shard_size)
    ranges = [shard_range(rows, shards, number) for number in {0, shards // 2, shards - 1}]
    lengths = {part.stop - part.start for part in ranges}
    assert max(lengths) - min(lengths) <= 1
    assert max(lengths) <= shard_size


@settings(deadline=None)
@given(rows=st.integers(1, 500), shard_size=st.integers(1, 100), window=WINDOWS, data=st.data())
def test_a_shard_is_the_same_whatever_else_is_made_and_in_which_order(
    rows: int, shard_size: int, window: int | None, data: st.DataObject
) -> None:
    made = plan(rows, shard_size, window=window)
    numbers = data.draw(st.permutations(range(made.shards("train"))))
    in_this_order = {number: made.rows("train", number).tolist() for number in numbers}
    again = plan(rows, shard_size, window=window)
    assert in_this_order == {number: again.rows("train", number).tolist() for number in range(made.shards("train"))}


@settings(deadline=None)
@given(rows=st.integers(1, 600), shard_size=st.integers(1, 50), count=st.integers(1, 60), window=WINDOWS)
def test_any_number_of_slices_makes_the_same_shards_each_once(
    rows: int, shard_size: int, count: int, window: int | None
) -> None:
    made = plan(rows, shard_size, window=window)
    sliced = [task for number in range(count) for task in Slice(number, count).of(made.tasks)]
    assert sliced == made.tasks
    assert sum(len(made.rows(*task)) for task in sliced) == rows


@settings(deadline=None)
@given(rows=st.integers(1, 400), window=st.integers(1, 150), seed=st.integers(0, 2**40), data=st.data())
def test_a_windowed_order_is_shuffled_in_each_window_and_the_same_in_parts(
    rows: int, window: int, seed: int, data: st.DataObject
) -> None:
    whole = windowed(rows, window, slice(0, rows), seed, 7)
    for start in range(0, rows, window):
        assert sorted(whole[start : start + window].tolist()) == list(range(start, min(start + window, rows)))
    start = data.draw(st.integers(0, rows))
    part = slice(start, data.draw(st.integers(start, rows)))
    assert windowed(rows, window, part, seed, 7).tolist() == whole[part].tolist()


def test_windows_are_shuffled_each_in_its_own_way() -> None:
    whole = windowed(200, 100, slice(0, 200), 0, 7)
    assert whole[:100].tolist() != list(range(100))
    assert whole[:100].tolist() != (whole[100:] - 100).tolist()


def test_the_seed_and_the_split_change_the_order() -> None:
    orders = [
        made.rows(split, 0).tolist()
        for split, made in [
            ("train", plan(100, 100)),
            ("train", plan(100, 100, seed=1)),
            ("val", plan(100, 100, split="val")),
        ]
    ]
    assert orders[0] != orders[1]
    assert orders[0] != orders[2]
    assert orders[0] != list(range(100))


def test_a_shard_beyond_the_last_is_an_error() -> None:
    with pytest.raises(ValueError, match="shard 3 of 3"):
        plan().rows("train", 3)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    plan().write(tmp_path / "plan.json")
    assert Plan.read(tmp_path / "plan.json") == plan()


@pytest.mark.parametrize(
    "changed",
    [
        {"source": 3},
        {"splits": {"train": "ten"}},
        {"splits": {"train": -1}},
        {"splits": {"../up": 3}},
        {"splits": ["train"]},
        {"libraries": None},
        {"libraries": {"pillow": 12}},
        {"settings": "none"},
        {"settings": {"shard_size": "4"}},
        {"unknown": 1},
    ],
)
def test_a_plan_of_other_types_is_damaged(tmp_path: Path, changed: dict[str, Any]) -> None:
    path = tmp_path / "plan.json"
    plan().write(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))
    with pytest.raises(ShardfeedError, match=r"plan.json is damaged"):
        Plan.read(path)


@pytest.mark.parametrize("text", ['{"source": "x"', "[]", "3", "", "\xff"])
def test_a_plan_that_is_no_json_object_is_damaged(tmp_path: Path, text: str) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ShardfeedError, match=r"plan.json is damaged"):
        Plan.read(path)


def test_each_difference_is_named_and_a_moved_source_is_none() -> None:
    assert plan().differences(replace(plan(), source="elsewhere")) == []
    other = replace(
        plan(seed=3), settings=Settings(short_side=None, quality=80, shard_size=4, seed=3), libraries={"pillow": "13"}
    )
    assert plan().differences(other) == [
        "--short-side 256 there, --original here",
        "--quality 90 there, 80 here",
        "--seed 0 there, 3 here",
        "pillow 12 there, 13 here",
    ]


def test_another_source_is_named() -> None:
    other = replace(plan(), source="elsewhere", fingerprint="cd" * 32)
    assert plan().differences(other) == ["source somewhere (abababab) there, elsewhere (cdcdcdcd) here"]


def test_a_split_name_that_cannot_be_a_directory_is_refused() -> None:
    with pytest.raises(UsageError):
        plan(split="../up")
