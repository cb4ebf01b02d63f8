"""Worker processes: every task once, errors and deaths by name, and none outlives the job."""

import contextlib
import functools
import multiprocessing
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from preprocess.job.workers import Progress, ProgressBar, WorkerDied, run_tasks
from shards.common.errors import UsageError
from shards.common.terminal import CTRL_C
from tests import ROOT
from tests.helpers.kill import wait_until


def square(task: int, progress: Progress) -> int:
    progress(1, task, 0, 0)
    return task * task


def process_id(task: int, progress: Progress) -> int:
    return os.getpid()


def refuse(task: int, progress: Progress) -> int:
    if task == 2:
        raise UsageError("task 2 cannot be done")
    return task


def fill_the_disk(task: int, progress: Progress) -> int:
    raise OSError(28, "No space left on device")


def be_killed(number: signal.Signals, task: int, progress: Progress) -> int:
    """Dies of a signal with as many items behind it as the task says."""
    for _ in range(task):
        progress(1, 0, 0, 0)
    os.kill(os.getpid(), number)
    return task


def sleep(folder: Path, task: int, progress: Progress) -> int:
    (folder / str(os.getpid())).touch()
    time.sleep(600)
    return task


def ignore(*_: int) -> None:
    pass


@pytest.mark.parametrize("workers", [1, 2])
def test_every_task_is_done_once_and_progress_adds_up(workers: int) -> None:
    seen: list[tuple[int, int, int, int]] = []
    results = list(run_tasks(square, range(9), workers, lambda *more: seen.append(more)))
    assert sorted(results) == [task * task for task in range(9)]
    assert tuple(map(sum, zip(*seen, strict=True))) == (9, 36, 0, 0)
    assert not multiprocessing.active_children()


def test_one_worker_is_this_process() -> None:
    assert set(run_tasks(process_id, range(3), 1, ignore)) == {os.getpid()}


def test_two_workers_are_two_other_processes() -> None:
    found = set(run_tasks(process_id, range(40), 2, ignore))
    assert os.getpid() not in found
    assert 1 <= len(found) <= 2


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_arrives_as_it_was_raised_and_ends_the_workers(workers: int) -> None:
    with pytest.raises(UsageError, match="task 2 cannot be done"):
        list(run_tasks(refuse, range(50), workers, ignore))
    assert not multiprocessing.active_children()


def test_an_error_of_the_file_system_keeps_its_number() -> None:
    with pytest.raises(OSError, match="No space left") as caught:
        list(run_tasks(fill_the_disk, range(2), 2, ignore))
    assert caught.value.errno == 28


@pytest.mark.parametrize(
    ("number", "said"),
    [(signal.SIGKILL, r"killed by SIGKILL.*out of memory"), (signal.SIGSEGV, r"killed by SIGSEGV.*a library crashed")],
)
def test_a_killed_worker_ends_the_job_with_its_signal_and_its_place(number: signal.Signals, said: str) -> None:
    with pytest.raises(WorkerDied, match=said) as caught:
        list(run_tasks(functools.partial(be_killed, number), [3, 7], 2, ignore))
    assert caught.value.task in (3, 7)
    assert caught.value.done == caught.value.task
    assert not multiprocessing.active_children()


def test_workers_do_not_outlive_a_killed_job(tmp_path: Path) -> None:
    code = (
        "import functools, pathlib, sys; from tests.preprocess.job import test_workers as t\n"
        "from preprocess.job.workers import run_tasks\n"
        "if __name__ == '__main__':\n"
        "    list(run_tasks(functools.partial(t.sleep, pathlib.Path(sys.argv[1])), range(2), 2, t.ignore))\n"
    )
    script = tmp_path / "job.py"
    script.write_text(code)
    (tmp_path / "ids").mkdir()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    job = subprocess.Popen([sys.executable, str(script), str(tmp_path / "ids")], env=environment)
    wait_until(lambda: len(list((tmp_path / "ids").iterdir())) == 2)
    workers = [int(path.name) for path in (tmp_path / "ids").iterdir()]
    job.kill()
    job.wait()
    wait_until(lambda: not any(map(runs, workers)))


def test_closing_ends_workers_in_the_middle_of_a_task(tmp_path: Path) -> None:
    (tmp_path / "ids").mkdir()
    results = run_tasks(functools.partial(sleep, tmp_path / "ids"), range(2), 2, stop_when_there(tmp_path / "ids"))
    with pytest.raises(KeyboardInterrupt):
        next(results)
    assert not multiprocessing.active_children()


def stop_when_there(folder: Path) -> Progress:
    """Does what Ctrl-C does in the parent, once both workers are at it."""

    def progress(*_: int) -> None:
        if len(list(folder.iterdir())) == 2:
            raise KeyboardInterrupt

    return progress


def runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    # A zombie that nobody waits for has stopped running all the same.
    return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()


@contextlib.contextmanager
def terminal() -> Iterator[int]:
    """In the block stdout and stderr are a terminal of 60 columns; what it shows can be read from the other end."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 60))
    screen = os.fdopen(theirs, "w", buffering=1)
    with screen, contextlib.redirect_stdout(screen), contextlib.redirect_stderr(screen):
        yield ours
    os.close(ours)


def test_a_line_is_written_above_the_bar_which_leaves_room_for_ctrl_c() -> None:
    with terminal() as screen:
        with ProgressBar(10) as bar:
            bar.write("made again: a.tar")
        shown = [each.split("\r")[-1] for each in os.read(screen, 10_000).decode().split("\r\n")]
    assert shown[0] == "made again: a.tar"
    assert shown[1].startswith("  0%|")
    assert len(shown[1]) == 60 - CTRL_C


def test_the_time_in_which_workers_start_is_no_part_of_the_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(), ProgressBar(100) as bar:
        now = time.time()
        for seconds in (50, 51, 52):
            monkeypatch.setattr(bar._bar, "_time", lambda seconds=seconds: now + seconds)
            bar.advance(10, 0, 0, 0)
        said = bar._bar.format_dict
    assert (said["n"], said["initial"], said["elapsed"]) == (30, 10, 2)
    assert said["rate"] == pytest.approx(10)
