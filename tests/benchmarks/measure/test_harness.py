"""The measuring harness on a clock of its own: order of turns, what is not counted, and the statistics."""

import contextlib
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from benchmarks.measure.harness import Contender, Interval, Schedule, measure
from shards.common.errors import ShardfeedError, UsageError


@dataclass
class Machine:
    """A clock that contenders advance, and a record of what they did."""

    now: float = 0.0
    events: list[str] = field(default_factory=list)

    def contender(
        self, name: str, costs: list[float], *, cold: int = 0, depth: int = 1, stride: int = 1, last: int = 10**6
    ) -> Contender:
        """Ten images a batch, each batch of the n-th turn costing costs[n] s and the first `cold` ones 100 s more."""
        turns = iter(costs)

        @contextlib.contextmanager
        def start() -> Iterator[Iterator[int]]:
            self.events.append(f"open {name}")
            yield produce(next(turns))
            self.events.append(f"close {name}")

        def produce(cost: float) -> Iterator[int]:
            for number in range(last):
                self.now += cost + (100 if number < cold else 0)
                yield 10

        return Contender(name, start, images=lambda batch: batch, depth=depth, stride=stride)

    def clock(self) -> float:
        return self.now


def test_contenders_take_turns_and_are_closed_before_the_next_one_opens() -> None:
    machine = Machine()
    contenders = [machine.contender("A", [1.0] * 3), machine.contender("B", [2.0] * 3)]
    measure(contenders, Schedule(rounds=2, seconds=5), machine.clock)
    assert machine.events == ["open A", "close A", "open B", "close B"] * 3


def test_the_first_round_is_not_counted() -> None:
    machine = Machine()
    intervals = measure([machine.contender("A", [50.0, 1.0, 2.0])], Schedule(rounds=2, seconds=8), machine.clock)
    assert [interval.images_per_s for interval in intervals["A"]] == [10.0, 5.0]


@pytest.mark.parametrize(("warm_up", "depth", "cold"), [(8, 1, 8), (3, 10, 20)])
def test_the_first_batches_of_a_turn_are_not_counted(warm_up: int, depth: int, cold: int) -> None:
    machine = Machine()
    contender = machine.contender("A", [1.0] * 2, cold=cold, depth=depth)
    intervals = measure([contender], Schedule(rounds=1, seconds=4, warm_up=warm_up), machine.clock)
    assert intervals["A"] == [Interval(images=40, seconds=4.0)]


@pytest.mark.parametrize(("seconds", "cold"), [(4.0, 32), (0.25, 16)])
def test_batches_are_thrown_away_for_half_a_second_or_an_interval(seconds: float, cold: int) -> None:
    machine = Machine()
    measure([machine.contender("A", [1 / 64] * 2)], Schedule(rounds=1, seconds=seconds), machine.clock)
    assert machine.now == 2 * (cold / 64 + seconds)


def test_an_interval_is_a_multiple_of_the_stride() -> None:
    machine = Machine()
    contender = machine.contender("A", [1.0] * 2, stride=4)
    intervals = measure([contender], Schedule(rounds=1, seconds=5), machine.clock)
    assert intervals["A"] == [Interval(images=80, seconds=8.0)]


def test_a_contender_that_runs_dry_is_an_error() -> None:
    machine = Machine()
    with pytest.raises(ShardfeedError, match="A ended"):
        measure([machine.contender("A", [1.0] * 2, last=8)], Schedule(rounds=1), machine.clock)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rounds": 0}, "--rounds must be 1 or more, not 0"),
        ({"seconds": 0.0}, "--seconds must be a number above 0, not 0"),
        ({"seconds": float("nan")}, "--seconds must be a number above 0, not nan"),
        ({"warm_up": 0}, "warm_up must be at least 1 batch"),
    ],
)
def test_schedules_that_measure_nothing_are_refused_by_the_name_of_the_option(
    settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=f"^{said}"):
        Schedule(**settings)


def test_each_turn_that_counts_is_kept_with_as_many_figures_of_each() -> None:
    machine, kept = Machine(), list[dict[str, int]]()
    contenders = [machine.contender(name, [1.0] * 3) for name in "AB"]
    keep = lambda found: kept.append({name: len(each) for name, each in found.items()})  # noqa: E731
    measure(contenders, Schedule(rounds=2, seconds=5), machine.clock, keep=keep)
    assert kept == [{"A": 1}, {"A": 1, "B": 1}, {"A": 1, "B": 1}, {"A": 2, "B": 2}]


def test_a_contender_that_fails_does_not_stop_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    machine, failed = Machine(), dict[str, str]()
    contenders = [machine.contender("A", [1.0]), machine.contender("B", [1.0] * 3)]  # A has no second turn
    found = measure(contenders, Schedule(rounds=2, seconds=5), machine.clock, failed=failed)
    assert {name: len(each) for name, each in found.items()} == {"B": 2}
    assert failed == {"A": "RuntimeError: generator raised StopIteration"}
    said = capsys.readouterr().err
    assert "A failed, the others go on: RuntimeError: generator raised StopIteration\n" in said
    assert "turn 5 of 6: A has failed\n" in said


def test_where_all_fail_the_reasons_are_given() -> None:
    contender = Machine().contender("A", [1.0], last=3)
    with pytest.raises(ShardfeedError, match="all have failed: A: A ended before it gave a batch"):
        measure([contender], Schedule(rounds=1), Machine().clock, failed={})


def test_a_turn_that_is_to_be_the_first_epoch_ends_with_it() -> None:
    machine = Machine()
    contender = dataclasses.replace(machine.contender("A", [1.0] * 4), most=100)
    schedule = Schedule(rounds=1, seconds=50, warm_up=4)
    assert measure([contender], schedule, machine.clock)["A"] == [Interval(images=60, seconds=6.0)]
    with pytest.raises(ShardfeedError, match="A: an epoch is over before the warm-up is"):
        measure([contender], dataclasses.replace(schedule, warm_up=10), machine.clock)
