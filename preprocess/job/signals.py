"""SIGTERM and a closed terminal end a job the way Ctrl-C does: by an exception, so that everything is cleaned up."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class Stopped(SystemExit):
    """A signal asks the job to stop. Ends the process with status 128 + signal, as shells count."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.name = signal.Signals(number).name


@contextlib.contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Raises Stopped in the block when a signal arrives, once; signals that were ignored before (nohup) stay so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    handled = [number for number in SIGNALS if before[number] is not signal.SIG_IGN]

    def stop(number: int, _: FrameType | None) -> None:
        # Schedulers repeat themselves; cleaning up must not be interrupted by the second one.
        for each in handled:
            signal.signal(each, signal.SIG_IGN)
        raise Stopped(number)

    for number in handled:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in handled:
            signal.signal(number, before[number])
