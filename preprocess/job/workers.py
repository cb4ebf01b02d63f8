"""Runs tasks in worker processes that never outlive the job: each gets one task at a time through a pipe."""

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from multiprocessing.sharedctypes import RawArray
from types import FrameType
from typing import Any, TypeVar

from shards.common.errors import ShardfeedError
from shards.common.machine import usable_cores
from shards.common.terminal import ProgressLog, progress_bar

Task = TypeVar("Task")
Result = TypeVar("Result")
# Called as work goes on with the numbers added since the last call: items done, bytes written, items rejected, items
# that were found done.
Progress = Callable[[int, int, int, int], None]
Work = Callable[[Task, Progress], Result]

FIELDS = 4  # numbers that a call of Progress reports
POLL = 0.2  # seconds between two looks at the workers' progress
GRACE = 5.0  # seconds that the workers get to clean up before they are killed
HINTS = {
    signal.SIGKILL: "the machine may be out of memory, so try fewer --workers",
    signal.SIGBUS: "a file that it reads was cut short, or lies on a disk that fails",
    signal.SIGSEGV: "a library crashed on what it was given",
    signal.SIGABRT: "a library crashed on what it was given",
}


class WorkerDied(ShardfeedError):
    """A worker process ended in the middle of `task`, with `done` items of it behind it."""

    def __init__(self, message: str, task: Any, done: int) -> None:
        super().__init__(message)
        self.task = task
        self.done = done


def run_tasks(
    work: Work[Task, Result], tasks: Sequence[Task], workers: int, progress: Progress
) -> Generator[Result, None, None]:
    """Yields work(task, progress) for each task, as they finish.

    One worker is this very process. More are spawned, not forked (a fork after torch or Arrow started threads can
    hang), and `work` and the tasks are pickled for them. `progress` is called in this process. Raises the first error
    that `work` raised, and WorkerDied for a worker that died. Close the iterator to stop the workers.
    """
    workers = min(workers, len(tasks))
    if workers <= 1:
        for task in tasks:
            yield work(task, progress)
        return
    counts: Any = RawArray(ctypes.c_int64, FIELDS * workers)
    seen = [0] * FIELDS
    processes, connections = _start(work, workers, counts)
    try:
        waiting = list(reversed(tasks))
        busy = {
            connection: _Worker(process, counts, slot)
            for slot, (connection, process) in enumerate(zip(connections, processes, strict=True))
        }
        for connection, worker in busy.items():
            worker.send(connection, waiting.pop())
        while busy:
            ready = wait(list(busy), timeout=POLL)
            seen = _report(counts, seen, progress)
            for connection in [each for each in busy if each in ready]:
                yield busy[connection].receive(connection)
                if waiting:
                    busy[connection].send(connection, waiting.pop())
                else:
                    del busy[connection]
                    connection.close()
        _report(counts, seen, progress)
        for process in processes:
            process.join(GRACE)
    finally:
        _stop(processes)


def default_workers() -> int:
    """One worker for each core that this process may use."""
    return usable_cores()


class ProgressBar:
    """Images/s, time left, MB written and rejects over all workers; lines of a log where stderr is no terminal.

    `images`: how many there are; None where nobody knows.
    """

    def __init__(self, images: int | None) -> None:
        self._bar = progress_bar(total=images, unit="images", smoothing=0.05)
        self._log = ProgressLog(images)
        self._began = False
        self._bytes = 0
        self._rejects = 0

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def advance(self, images: int, size: int, rejects: int, found: int) -> None:
        """A Progress. Images that were found done move the bar, but do not count as speed.

        Nor do those of the first call: its time was that of workers that start, by which no time left can be told.
        """
        self._log.advance(images, found)
        self._bytes += size
        self._rejects += rejects
        self._bar.set_postfix_str(f"{self._bytes / 1e6:,.0f} MB, {self._rejects} rejected", refresh=False)
        if images and not self._began:
            self._began = True
            self._bar.unpause()
            images, found = 0, found + images
        if found and not self._bar.disable:
            self._bar.initial += found
            self._bar.n += found
            self._bar.last_print_n += found
        self._bar.update(images)

    def write(self, text: str) -> None:
        """Prints a line above the bar."""
        self._bar.write(text)


def _start(work: Work[Task, Result], workers: int, counts: Any) -> tuple[list[SpawnProcess], list[Connection]]:
    context = multiprocessing.get_context("spawn")
    processes, connections = [], []
    # Ctrl-C reaches the whole process group. Children inherit that it is ignored here, from their first moment.
    in_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) if in_main else None
    try:
        for slot in range(workers):
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(work, there, counts, slot), daemon=True)
            process.start()
            there.close()
            processes.append(process)
            connections.append(here)
    finally:
        if in_main:
            signal.signal(signal.SIGINT, before)
    return processes, connections


def _serve(work: Work[Task, Result], connection: Connection, counts: Any, slot: int) -> None:
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    # SIGTERM raises an exception, so that partial files are removed. The parent handles a closed terminal and Ctrl-C.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _stop_once)

    def progress(*more: int) -> None:
        for field, number in enumerate(more):
            counts[slot * FIELDS + field] += number

    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        try:
            answer: tuple[bool, Any] = (True, work(task, progress))
        except Exception as error:
            error.add_note(f"in a worker process:\n{traceback.format_exc()}")
            answer = (False, error)
        connection.send(answer)


def _stop_once(number: int, _: FrameType | None) -> None:
    # A scheduler signals every process, and the parent signals again: the second signal must not interrupt the cleanup.
    signal.signal(number, signal.SIG_IGN)
    sys.exit(1)


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _report(counts: Any, seen: Sequence[int], progress: Progress) -> list[int]:
    now = [sum(counts[field::FIELDS]) for field in range(FIELDS)]
    images, size, rejects, found = (new - old for new, old in zip(now, seen, strict=True))
    progress(images, size, rejects, found)
    return now


class _Worker:
    """A worker process, its current task, and how many items it had done when it began with it."""

    def __init__(self, process: SpawnProcess, counts: Any, slot: int) -> None:
        self._process = process
        self._counts = counts
        self._slot = slot
        self._task: Any = None
        self._before = 0

    def send(self, connection: Connection, task: Any) -> None:
        self._task = task
        self._before = self._items()
        # `receive` notices a worker that died between two tasks.
        with contextlib.suppress(BrokenPipeError):
            connection.send(task)

    def receive(self, connection: Connection) -> Any:
        try:
            succeeded, value = connection.recv()
        except (EOFError, ConnectionResetError):
            self._process.join(GRACE)
            raise WorkerDied(_how_it_died(self._process), self._task, self._items() - self._before) from None
        if not succeeded:
            raise value
        return value

    def _items(self) -> int:
        return int(self._counts[self._slot * FIELDS])


def _how_it_died(process: SpawnProcess) -> str:
    code = process.exitcode or 0
    if code >= 0:
        return f"a worker process ended with status {code}"
    number = signal.Signals(-code)
    return f"a worker process was killed by {number.name}{f' ({HINTS[number]})' if number in HINTS else ''}"


def _stop(processes: Sequence[SpawnProcess]) -> None:
    for process in processes:
        if process.exitcode is None:
            process.terminate()
    deadline = time.monotonic() + GRACE
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
    for process in processes:
        if process.exitcode is None:
            process.kill()
            process.join()
