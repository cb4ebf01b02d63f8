"""Signals by which schedulers and people end a job: raised at once, or noted and obeyed between two steps.

`stopped_by_signals`: SIGTERM and SIGHUP (a closed terminal) raise, as Ctrl-C does, so that everything is cleaned up.
`StopRequest`: SIGTERM, SIGHUP, SIGUSR1 and Ctrl-C are noted, so that the step in progress is finished and saved.

Only a process's main thread can receive signals; in another thread both do nothing.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any, Self

RAISED = (signal.SIGTERM, signal.SIGHUP)
NOTED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


class StoppedBySignal(SystemExit):
    """A signal ends the process, with status 128 + signal, as shells count. `name`: of the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.name = signal.Signals(number).name


@contextlib.contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Raises StoppedBySignal in the block when a signal arrives, once; signals ignored before (nohup) stay so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in RAISED}
    handled = [number for number in RAISED if before[number] is not signal.SIG_IGN]

    def stop(number: int, _: FrameType | None) -> None:
        # Schedulers repeat themselves; a second signal must not interrupt the cleaning up.
        for each in handled:
            signal.signal(each, signal.SIG_IGN)
        raise StoppedBySignal(number)

    for number in handled:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in handled:
            signal.signal(number, before[number])


class StopRequest:
    """While entered, a signal only sets `number`; 0 before one has arrived.

    A second Ctrl-C does not wait: it raises KeyboardInterrupt, and the last checkpoint is what remains.
    """

    def __init__(self) -> None:
        self.number = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            heard = [
                number for number in NOTED if signal.getsignal(number) is not signal.SIG_IGN
            ]  # as nohup sets SIGHUP
            self._before = {number: signal.signal(number, self._note) for number in heard}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def _note(self, number: int, _: FrameType | None) -> None:
        if number == self.number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = number
