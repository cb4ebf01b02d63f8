"""Threads that read, and that nobody has to wait for.

Python joins the threads of a ThreadPoolExecutor before it ends, ahead of everything that `atexit` calls. So one read
that hangs, on a server that stalls for instance, would keep a process alive after Ctrl-C. These are daemon threads:
`close` waits for them a while, and gives up those that hang.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

# Seconds that closing waits for reads under way. Those of a disk take milliseconds.
GRACE = 1.0


class DaemonThreads:
    """`count` threads that work on what is submitted, in its order."""

    def __init__(self, count: int, name: str) -> None:
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._closed = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, name=f"{name}_{number}", daemon=True) for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, call: Callable[P, T], /, *given: P.args, **named: P.kwargs) -> "Future[T]":
        """The result of a call on one of the threads, once it has come."""
        future: Future[T] = Future()

        def work() -> None:
            try:
                future.set_result(call(*given, **named))
            except BaseException as error:
                future.set_exception(error)

        self._work.put(work)
        return future

    def close(self) -> None:
        """Ends the threads: calls that have not begun do not begin; waits at most GRACE seconds for the others."""
        self._closed.set()
        for _ in self._threads:
            self._work.put(None)
        deadline = time.monotonic() + GRACE
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self) -> None:
        while (work := self._work.get()) is not None and not self._closed.is_set():
            work()
