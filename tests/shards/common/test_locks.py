"""Locks exclude processes, so each holder here is a process of its own."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shards.common.errors import Cancelled
from shards.common.locks import LockedElsewhere, holding, lock_shared, open_locked, open_range, try_exclusive
from tests import ROOT

HOLD = """
import sys, time
from pathlib import Path
from shards.common.locks import holding, open_locked, open_range
path = Path(sys.argv[1])
lock = eval(sys.argv[2])
if hasattr(lock, "__enter__") and not hasattr(lock, "read"):
    lock.__enter__()
print("held", flush=True)
time.sleep(600)
"""


@contextmanager
def held_by_another(path: Path, how: str) -> Iterator[subprocess.Popen[str]]:
    """Another process holds the lock that the expression `how` takes."""
    command = [sys.executable, "-c", HOLD, str(path), how]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        yield holder
        holder.kill()


def test_a_lock_file_is_waited_for_until_its_holder_dies(tmp_path: Path) -> None:
    path = tmp_path / "below" / "lock"
    with held_by_another(path, "holding(path)") as holder:
        threading.Timer(0.1, holder.kill).start()
        began = time.monotonic()
        with holding(path):
            assert time.monotonic() - began >= 0.1
    assert path.exists()


def test_a_stop_ends_the_wait_for_a_lock_file(tmp_path: Path) -> None:
    stop = threading.Event()
    with held_by_another(tmp_path / "lock", "holding(path)"):
        threading.Timer(0.1, stop.set).start()
        with pytest.raises(Cancelled), holding(tmp_path / "lock", stop):
            pass
    with holding(tmp_path / "lock", stop):
        pass  # a lock that is free is not waited for


def test_a_lock_file_excludes_threads_too(tmp_path: Path) -> None:
    counts = [0, 0]

    def work() -> None:
        for _ in range(20):
            with holding(tmp_path / "lock"):
                counts[0] += 1
                counts[1] = max(counts[1], counts[0])
                time.sleep(0.0005)
                counts[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [0, 1]


@pytest.mark.parametrize(("start", "end", "allowed"), [(0, 5, True), (15, 30, True), (5, 11, False), (14, 15, False)])
def test_ranges_exclude_what_overlaps_them_and_name_the_holder(
    tmp_path: Path, start: int, end: int, allowed: bool
) -> None:
    with held_by_another(tmp_path / "lock", "open_range(path, 10, 15)") as holder:
        if allowed:
            os.close(open_range(tmp_path / "lock", start, end))
            return
        with pytest.raises(LockedElsewhere) as refused:
            open_range(tmp_path / "lock", start, end)
        assert refused.value.process == holder.pid


def test_a_killed_process_holds_no_range(tmp_path: Path) -> None:
    with held_by_another(tmp_path / "lock", "open_range(path, 0, 9)") as holder:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        os.close(open_range(tmp_path / "lock", 0, 9))


def test_a_locked_file_is_refused_then_opened_once_its_holder_dies(tmp_path: Path) -> None:
    path = tmp_path / "below" / "log"
    with held_by_another(path, "open_locked(path)") as holder:
        with pytest.raises(LockedElsewhere) as refused:
            open_locked(path)
        assert refused.value.process == holder.pid
        threading.Timer(0.1, holder.kill).start()
        open_locked(path, patience_s=60).close()


def test_a_file_system_without_locks_gets_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def none(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.lockf", none)
    os.close(open_range(tmp_path / "lock", 0, 9))
    assert "this file system has no locks (Function not implemented)" in capsys.readouterr().err


def test_shared_and_exclusive_locks_of_open_files(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    first, second = (os.open(tmp_path / "file", os.O_RDWR) for _ in range(2))
    assert try_exclusive(first)
    assert not try_exclusive(second)
    stop = threading.Event()
    threading.Timer(0.1, stop.set).start()
    with pytest.raises(Cancelled):
        lock_shared(second, stop)
    threading.Timer(0.1, os.close, (first,)).start()
    lock_shared(second)
    os.close(second)
