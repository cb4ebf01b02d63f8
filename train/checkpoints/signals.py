"""Signals by which schedulers (SIGTERM, SIGUSR1) and people (Ctrl-C) end a job: noted here, obeyed between steps."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Stopped(SystemExit):
    """The run's state is saved and the process is to end, with status 128 + signal, as shells count."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.name = signal.Signals(number).name


class StopRequest:
    """While entered, a signal does no more than set `number`, so that a step in progress is finished and saved.

    A second Ctrl-C does not wait for that: KeyboardInterrupt, and the last checkpoint is what remains.

    Only a process's main thread can listen to signals; entered in another one, this does nothing.
    """

    def __init__(self) -> None:
        self.number = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
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
