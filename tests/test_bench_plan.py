"""The plan for scale: what it computes follows from what it is told, and what it simulates is what the code does."""

import dataclasses
import json

import numpy as np
import pytest

from benchmarks.plan import Costs, Options, hit_rate, measure, part_needed, plan, run, simulated_hit_rate
from shards.errors import UsageError
from shards.order import Share, epoch_order

COSTS = Costs(rows=10**6, order=0.15, index=0.05, index_file=14, manifest=170)
IMAGENET = Options(images=1_281_167, nodes=1, shard_size=1000, cache="100GB")


def needed(options: Options, what: str, hits: float = 0.0) -> float:
    (line,) = [line for line in plan(options, COSTS, hits) if line.what.startswith(what)]
    return line.needed


def test_imagenet_on_one_machine_holds_everywhere() -> None:
    assert [line.what for line in plan(IMAGENET, COSTS, hit_rate(IMAGENET)) if not line.holds] == []


def test_a_billion_images_break_the_index_the_order_and_the_network_and_say_what_changes() -> None:
    broken = {line.what: line.remedy for line in plan(Options(), COSTS, hit_rate(Options())) if not line.holds}
    assert "hierarchical index" in broken["resuming: index read, order computed, before the first batch"]
    assert "an order of its own for each node" in broken["network for data, blocks over all nodes"]


def test_the_network_carries_what_the_cache_does_not_hold() -> None:
    assert needed(Options(), "network for data, blocks", hits=0.5) == pytest.approx(
        needed(Options(), "network for data, blocks", hits=0.0) / 2
    )
    per_node = needed(Options(), "network for data, an order")
    assert per_node == pytest.approx(8 * 2500 * 31_000 / 1e9)
    assert needed(Options(), "network for data, blocks") == pytest.approx(64 * per_node)


@pytest.mark.parametrize(("nodes", "shard_size"), [(4, 3), (8, 50), (16, 10)])
def test_the_part_of_the_shards_that_a_node_needs_is_what_the_order_gives(nodes: int, shard_size: int) -> None:
    shard = np.repeat(np.arange(64, dtype=np.int32), shard_size)
    found = []
    for epoch in range(5):
        order = epoch_order(shard, "blocks", 0, epoch)
        share = Share(1, 0, nodes)
        mine = np.concatenate([share.take(order, position) for position in range(0, len(order), nodes)])
        found.append(len(np.unique(shard[mine])) / 64)
    assert np.mean(found) == pytest.approx(part_needed(nodes, shard_size), abs=0.06)


def test_the_simulated_cache_holds_all_nothing_or_something_between() -> None:
    rates = [simulated_hit_rate(share, shards=400) for share in (0.0, 0.25, 0.5, 0.9, 1.0)]
    assert rates[0] == 0
    assert rates[-1] == 1
    assert rates == sorted(rates)
    assert rates[1] < 0.25  # a new order each epoch is what a least-recently-used cache is worst at


def test_the_order_costs_more_than_in_proportion() -> None:
    assert COSTS.order_seconds(10**9) > 1000 * COSTS.order_seconds(10**6)
    assert COSTS.index_seconds(10**9) == pytest.approx(1000 * COSTS.index_seconds(10**6))


def test_costs_are_measured_here() -> None:
    costs = measure(20_000)
    assert costs.order > 0
    assert costs.index > 0
    assert 5 < costs.index_file < 60
    assert 100 < costs.manifest < 300


def test_the_last_line_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    run(dataclasses.replace(IMAGENET, rows=20_000))
    said = capsys.readouterr().out
    assert "1,281,167 images (0.0 TB) on 1 nodes of 8 GPUs" in said
    summary = json.loads(said.splitlines()[-1])
    assert {line["holds"] for line in summary["lines"]} == {True}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"nodes": 0}, "--nodes must be 1 or more, not 0"),
        ({"link": "fast"}, "a size is given as"),
        ({"rows": 10}, "--rows must be 1,000 or more"),
    ],
)
def test_what_makes_no_sense_is_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Options(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize(("link", "gigabytes"), [("100Gb", 12.5), ("100Gbit/s", 12.5), ("400G", 50)])
def test_links_are_given_in_bits(link: str, gigabytes: float) -> None:
    assert Options(link=link).bytes_per_s == gigabytes * 1e9
