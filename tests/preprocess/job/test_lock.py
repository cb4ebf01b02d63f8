"""Locks exclude processes, not threads, so each holder here is a process of its own."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from preprocess.job.lock import LOCK, locked
from preprocess.job.slices import WHOLE, Slice
from shards.common.errors import ShardfeedError
from tests import ROOT

HOLD = """
import sys, time
from pathlib import Path
from preprocess.job.lock import locked
from preprocess.job.slices import Slice
with locked(Path(sys.argv[1]), Slice.parse(sys.argv[2])):
    print("held", flush=True)
    time.sleep(600)
"""


@contextmanager
def held_by_another(work: Path, part: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(work), part], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        yield holder
        holder.kill()


def test_what_another_process_holds_is_refused_and_named(tmp_path: Path) -> None:
    with held_by_another(tmp_path / "out" / ".work", "0/1") as holder:
        message = f"another job is at work on {tmp_path / 'out'} \\(process {holder.pid}\\)"
        with pytest.raises(ShardfeedError, match=message), locked(tmp_path / "out" / ".work"):
            pass


@pytest.mark.parametrize(
    ("held", "wanted", "allowed"),
    [
        ("0/4", "1/4", True),
        ("1/4", "3/4", True),
        ("1/2", "0/4", True),
        ("0/4", "0/4", False),
        ("0/4", "0/1", False),
        ("0/1", "2/4", False),
        ("1/2", "3/4", False),
    ],
)
def test_slices_exclude_what_overlaps_them(tmp_path: Path, held: str, wanted: str, allowed: bool) -> None:
    work = tmp_path / ".work"
    with held_by_another(work, held):
        if allowed:
            with locked(work, Slice.parse(wanted)):
                pass
            return
        with pytest.raises(ShardfeedError, match="another job is at work"), locked(work, Slice.parse(wanted)):
            pass


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    with held_by_another(tmp_path / ".work", "0/1") as holder:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        with locked(tmp_path / ".work"):
            assert (tmp_path / ".work" / LOCK).exists()


def test_a_job_that_came_to_nothing_leaves_nothing(tmp_path: Path) -> None:
    with locked(tmp_path / "out" / ".work"):
        pass
    assert not (tmp_path / "out").exists()


def test_the_file_stays_while_another_slice_holds_it(tmp_path: Path) -> None:
    work = tmp_path / ".work"
    with held_by_another(work, "0/2"):
        with locked(work, Slice(1, 2)):
            pass
        assert (work / LOCK).exists()
        with pytest.raises(ShardfeedError), locked(work, WHOLE):
            pass


def test_what_a_job_left_stays(tmp_path: Path) -> None:
    with locked(tmp_path / ".work"):
        (tmp_path / ".work" / "plan.json").touch()
    assert (tmp_path / ".work" / "plan.json").exists()


def test_a_file_that_was_removed_in_between_is_not_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = tmp_path / ".work"
    opened = os.open
    calls: list[Path] = []

    def open_and_lose(path: Path, *rest: int) -> int:
        descriptor = opened(path, *rest)
        if not calls:
            path.unlink()  # what a job that ends at this moment does
        calls.append(path)
        return descriptor

    monkeypatch.setattr(os, "open", open_and_lose)
    with locked(work):
        assert len(calls) == 2
        assert (work / LOCK).exists()


def test_a_file_system_without_locks_gets_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def none(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.lockf", none)
    with locked(tmp_path / ".work"):
        assert "this file system has no locks (Function not implemented)" in capsys.readouterr().err
