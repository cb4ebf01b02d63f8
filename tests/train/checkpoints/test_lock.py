"""Two runs at one moment do not write into one directory. Locks exclude processes, so the holder is another one."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from shards.common.errors import ShardfeedError, UsageError
from tests import ROOT
from train.checkpoints.resume import Checkpoint, claim
from train.config import Config
from train.curves import METRICS
from train.ranks.distributed import World
from train.report.clock import ClockReading
from train.report.metrics import Recorder, open_log

HOLD = """
import sys
from pathlib import Path
from train.report.metrics import open_log
file = open_log(Path(sys.argv[1]))
file.write("a line")
file.flush()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another process that writes to metrics.jsonl."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_run_is_refused_and_changes_nothing(holder: "subprocess.Popen[str]", tmp_path: Path) -> None:
    with pytest.raises(ShardfeedError, match=r"another run is writing into .*: wait for it, stop it, or choose"):
        Recorder(tmp_path, {})
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {METRICS: "a line"}


def test_a_run_holds_its_directory_until_its_end(tmp_path: Path) -> None:
    with Recorder(tmp_path, {}) as recorder:
        recorder.metrics("train", 1, 1, loss=1.0)
        recorder.total_time(ClockReading(), 0.0, 0.0, 0)  # reads the file that is locked
        other = subprocess.run([sys.executable, "-c", HOLD, str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert "another run is writing" in other.stderr


def test_a_killed_run_is_not_in_the_way(holder: "subprocess.Popen[str]", tmp_path: Path) -> None:
    holder.kill()
    holder.wait()
    with Recorder(tmp_path, {}) as recorder:
        assert recorder.sizes()[METRICS] == 0


def test_ranks_that_start_again_wait_for_those_before(
    holder: "subprocess.Popen[str]", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")

    def end(_: float) -> None:
        holder.kill()
        holder.wait()

    monkeypatch.setattr("shards.common.locks.time.sleep", end)
    open_log(tmp_path).close()


def test_a_run_that_ends_while_another_waits_for_its_directory_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def after_the_other(out: Path) -> IO[str]:
        (out / "checkpoints").mkdir()
        (out / "checkpoints" / "last.pt").touch()
        (out / "total_training_time.csv").touch()
        return open_log(out)

    monkeypatch.setattr("train.checkpoints.resume.open_log", after_the_other)
    with pytest.raises(UsageError, match="holds a complete run"):
        claim(Config(tmp_path / "data", out=tmp_path, device="cpu"), World(), None)


def test_a_run_that_goes_on_while_another_waits_for_its_directory_is_not_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = tmp_path / "checkpoints" / "last.pt"
    last.parent.mkdir()
    last.write_text("step 1")
    found = Checkpoint(last, {}, (last.stat().st_mtime_ns, last.stat().st_size))
    config = Config(tmp_path / "data", out=tmp_path, device="cpu")
    log = claim(config, World(), found)
    assert log is not None
    log.close()

    def after_the_other(out: Path) -> IO[str]:
        last.write_text("step 20")
        return open_log(out)

    monkeypatch.setattr("train.checkpoints.resume.open_log", after_the_other)
    with pytest.raises(ShardfeedError, match="has gone on meanwhile: give the same command again"):
        claim(config, World(), found)
