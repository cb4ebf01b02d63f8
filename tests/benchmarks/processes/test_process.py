"""A contender in a process of its own: its intervals, and what is said when it cannot or dies."""

import dataclasses
import os
import time
from pathlib import Path

import pytest
import torch

from benchmarks.measure.harness import Schedule, measure
from benchmarks.measure.settings import BatchSpec
from benchmarks.peers.roster import Entry
from benchmarks.processes.process import Hangs, PeerProcess
from benchmarks.processes.serve import Check
from benchmarks.processes.task import PeerTask, own_format
from shards.common.errors import ShardfeedError
from shards.dataset import Split
from tests.helpers import forks

SHORT = Schedule(rounds=1, seconds=0.05, warm_up=1)


def _process(split: Split, mode: str) -> PeerProcess:
    task = PeerTask(
        str(split.root), "train", "", "image", "label", "", BatchSpec(batch_size=4, size=8), 2, {"mode": mode}
    )
    return PeerProcess("fake", None, "tests.helpers.fake_peer", task)


def test_intervals_come_from_another_process_which_ends_with_the_block(small_split: Split) -> None:
    with _process(small_split, "well") as process:
        assert process.settings == {"threads": 2, "mode": "well"}
        intervals = measure([process], SHORT)["fake"]
        assert [interval.images % 4 for interval in intervals] == [0]
        assert intervals[0].seconds >= 0.05
        assert intervals[0].images_per_s < 4 / 0.001
        pid = process.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.processes.process.subprocess", forks)


def test_one_that_cannot_start_says_why(small_split: Split, forked: None) -> None:
    with pytest.raises(ShardfeedError, match=r"fake: RuntimeError: no engine$"):
        _process(small_split, "cannot start")


def test_one_that_dies_is_named(small_split: Split, forked: None) -> None:
    with pytest.raises(ShardfeedError, match="fake ended"):
        _process(small_split, "dies")


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64), "torch.uint8"),
        (torch.zeros(4, 8, 8, 3), torch.zeros(4, dtype=torch.int64), r"\(4, 8, 8, 3\)"),
        (torch.zeros(4, 3, 8, 8), torch.zeros(4), "int64 labels"),
        (torch.zeros(3, 3, 8, 8), torch.zeros(3, dtype=torch.int64), r"\(3, 3, 8, 8\)"),
        (torch.zeros(4, 3, 8, 8), torch.full((4,), 10), "labels go from 10 to 10, of 10"),
    ],
)
def test_other_work_is_refused(images: torch.Tensor, labels: torch.Tensor, message: str) -> None:
    check = Check(BatchSpec(batch_size=4, size=8), classes=10)
    with pytest.raises(ShardfeedError, match=message):
        check((images, labels))


def test_one_that_hangs_in_a_turn_is_killed(small_split: Split, forked: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with _process(small_split, "well") as process:
        monkeypatch.setattr("benchmarks.processes.process.TURN", -0.04)
        with pytest.raises(Hangs, match="no answer"):
            process.turn(SHORT)
        with pytest.raises(ProcessLookupError):
            os.kill(process.pid, 0)


def test_one_that_hangs_is_given_up(small_split: Split, forked: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.processes.process.START", 0.01)
    start = time.monotonic()
    with pytest.raises(ShardfeedError, match="no answer"):
        _process(small_split, "well")
    assert time.monotonic() - start < 60


def test_an_encoding_that_a_contender_does_not_read_is_named() -> None:
    assert Entry("SPDL", "spdl", encodings=("jpeg",)).absence("raw", BatchSpec()) == "does not read raw images"


def test_rows_that_a_contender_has_no_form_for_are_named() -> None:
    entry = Entry("timm", "timm", rrc_only=True)
    assert entry.absence("jpeg", BatchSpec(crop="rrc")) is None
    assert "alone" in str(entry.absence("jpeg", BatchSpec()))
    assert "web server" in str(entry.absence("jpeg", BatchSpec(crop="rrc"), "http"))
    assert "tars of others" in str(entry.absence("jpeg", BatchSpec(crop="rrc"), indexed=True))


def _task(split: Split, work: Path) -> PeerTask:
    return PeerTask(str(split.root), "train", "", "image", "label", str(work), BatchSpec(batch_size=4, size=8), 2)


def test_a_format_of_its_own_is_written_anew_after_an_interruption(small_split: Split, tmp_path: Path) -> None:
    def write(path: Path, fails: bool) -> None:
        path.mkdir()  # refuses a directory that is there
        (path / "part").write_text("x")
        if fails:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        own_format(_task(small_split, tmp_path), "peer", lambda path: write(path, True))
    made = own_format(_task(small_split, tmp_path), "peer", lambda path: write(path, False))
    assert (made / "part").exists()
    assert own_format(_task(small_split, tmp_path), "peer", lambda path: pytest.fail("made twice")) == made


def test_a_cold_turn_forgets_the_shards_and_what_the_peer_has_written(
    small_split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forgotten: list[Path] = []
    monkeypatch.setattr("benchmarks.measure.cold.forget", forgotten.extend)
    task = dataclasses.replace(_task(small_split, tmp_path), reads="disk")
    (tmp_path / "of another peer").write_text("x")
    made = own_format(task, "peer", Path.touch)
    task.before_turn()
    assert set(small_split.shard_paths) | {made} <= set(forgotten)
    assert tmp_path / "of another peer" not in forgotten
