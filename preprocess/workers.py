"""Runs tasks in worker processes that never outlive the job: each is handed one task at a time over a pipe."""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Generator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from multiprocessing.sharedctypes import RawArray
from typing import Any, TypeVar

from shards.errors import ShardfeedError

Task = TypeVar("Task")
Result = TypeVar("Result")
Progress = Callable[[int, int, int], None]
Work = Callable[[Task, Progress], Result]

FIELDS = 3  # numbers that a call of Progress reports
POLL = 0.2  # seconds between two looks at the workers' progress
GRACE = 5.0  # seconds that a worker gets to clean up before it is killed


def run_tasks(
    work: Work[Task, Result], tasks: Sequence[Task], workers: int, progress: Progress
) -> Generator[Result, None, None]:
    """Yields work(task, progress) for each task, as they finish.

    One worker means this very process; more are processes started afresh (a fork after torch or Arrow started
    threads can hang), to which `work` and the tasks are pickled. `progress` is called in this process. Raises what
    `work` raised first, ShardfeedError for a worker that died. Close the iterator to stop the workers.
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
        for connection in connections:
            connection.send(waiting.pop())
        busy = dict(zip(connections, processes, strict=True))
        while busy:
            ready = wait(list(busy), timeout=POLL)
            seen = _report(counts, seen, progress)
            for connection in [each for each in busy if each in ready]:
                yield _receive(connection, busy[connection])
                if waiting:
                    connection.send(waiting.pop())
                else:
                    del busy[connection]
                    connection.close()
        _report(counts, seen, progress)
        for process in processes:
            process.join(GRACE)
    finally:
        _stop(processes)


def _start(work: Work[Task, Result], workers: int, counts: Any) -> tuple[list[SpawnProcess], list[Connection]]:
    context = multiprocessing.get_context("spawn")
    processes, connections = [], []
    # Ctrl-C reaches the whole process group. What is ignored here stays ignored in children, from their first moment.
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
    # An exception instead of sudden death, so that partial files are removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))

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


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _report(counts: Any, seen: Sequence[int], progress: Progress) -> list[int]:
    now = [sum(counts[field::FIELDS]) for field in range(FIELDS)]
    images, size, rejects = (new - old for new, old in zip(now, seen, strict=True))
    progress(images, size, rejects)
    return now


def _receive(connection: Connection, process: SpawnProcess) -> Any:
    try:
        succeeded, value = connection.recv()
    except (EOFError, ConnectionResetError):
        process.join(GRACE)
        code = process.exitcode or 0
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
        hint = ": the machine may be out of memory, so try fewer --workers" if code == -signal.SIGKILL else ""
        raise ShardfeedError(f"a worker process {how}{hint}") from None
    if not succeeded:
        raise value
    return value


def _stop(processes: Sequence[SpawnProcess]) -> None:
    for process in processes:
        if process.exitcode is None:
            process.terminate()
    for process in processes:
        process.join(GRACE)
        if process.exitcode is None:
            process.kill()
            process.join()
