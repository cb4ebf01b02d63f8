"""The training clock."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch import Tensor, nn

from tests.helpers.training import FixedBatches, setup_of
from train.config import Config
from train.curves import METRICS
from train.engine import train_epoch
from train.report.clock import Clock, ClockReading
from train.report.metrics import Recorder
from train.run import begin


class Time:
    """A time that moves only when told."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def test_the_clock_stands_still_between_stop_and_start() -> None:
    time = Time()
    clock = Clock(time)
    clock.start()
    time.seconds += 2
    clock.stop()
    time.seconds += 50  # an evaluation
    clock.start()
    time.seconds += 3
    assert clock.read().seconds == 5


def test_time_until_a_batch_comes_is_waiting_and_time_spent_on_it_is_not() -> None:
    time = Time()
    clock = Clock(time)

    def slow_batches() -> Iterator[int]:
        for batch in (1, 2):
            time.seconds += 1
            yield batch

    clock.start()
    seen = []
    for batch in clock.timed(slow_batches()):
        time.seconds += 4
        clock.count(16)
        seen.append(batch)
    assert seen == [1, 2]
    assert clock.read() == ClockReading(seconds=10, waited=2, images=32)


def test_waits_of_the_gpu_count_as_waiting_for_data() -> None:
    time = Time()
    clock = Clock(time)
    clock.start()
    time.seconds += 4
    clock.add_wait(1.5)
    assert clock.read() == ClockReading(seconds=4, waited=1.5)


def test_images_and_waiting_are_shares_of_a_window() -> None:
    window = ClockReading(seconds=30.0, waited=4.0, images=700) - ClockReading(seconds=10.0, waited=2.0, images=500)
    assert window == ClockReading(seconds=20.0, waited=2.0, images=200)
    assert window.images_per_s == 10
    assert window.wait_percent == 10


def test_a_window_without_time_has_no_speed() -> None:
    assert (ClockReading().images_per_s, ClockReading().wait_percent) == (0.0, 0.0)


def test_waits_of_host_and_gpu_that_overlap_are_not_more_than_the_time() -> None:
    assert ClockReading(seconds=2.0, waited=3.0).wait_percent == 100


def test_images_per_s_leave_out_what_happens_between_epochs(tmp_path: Path) -> None:
    time = Time()

    class SlowBatches(FixedBatches):
        """Each takes a second to come."""

        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            for batch in self.batches:
                time.seconds += 1
                yield batch

    class SlowNetwork(nn.Module):
        """Each batch takes it three seconds."""

        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(3, 10)

        def forward(self, images: Tensor) -> Tensor:
            time.seconds += 3
            logits: Tensor = self.head(images.mean((2, 3)))
            return logits

    config = Config(Path("unused"), batch=4, micro_batch=4, epochs=2, device="cpu", log_every=2)
    batches = SlowBatches([4] * 4, side=8)
    run = begin(SlowNetwork(), setup_of(config), micro_batches=len(batches))
    run.clock = Clock(time)
    with Recorder(tmp_path, {}) as recorder:
        for epoch in (1, 2):
            train_epoch(run, batches, recorder, epoch)
            time.seconds += 1000  # evaluation and saving
    lines = [json.loads(line) for line in (tmp_path / METRICS).read_text().splitlines()]
    assert {line["epoch"] for line in lines} == {1, 2}
    assert {line["images_per_s"] for line in lines} == {1.0}  # 4 images in 1 + 3 seconds
    assert {line["data_wait_percent"] for line in lines} == {25.0}


def test_a_clock_goes_on_from_its_state() -> None:
    time = Time()
    clock = Clock(time)
    clock.start()
    for _ in clock.timed([1, 2]):
        time.seconds += 3
        clock.count(8)
    clock.lap()
    clock.warmed_up = clock.last_log
    clock.stop()
    time.seconds += 10  # saving
    state = json.loads(json.dumps(clock.state_dict()))

    time.seconds += 1000  # until the run goes on
    resumed = Clock(time)
    resumed.load_state_dict(state)
    assert resumed.read() == ClockReading(6, 0, 16)
    assert resumed.wall_seconds() == pytest.approx(16)
    resumed.start()
    time.seconds += 2
    resumed.count(8)
    assert resumed.lap() == resumed.steady() == resumed.steady_epoch() == ClockReading(2, 0, 8)
    assert resumed.epoch_so_far() == ClockReading(8, 0, 24)
