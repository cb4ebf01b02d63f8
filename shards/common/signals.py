"""Signals by which schedulers and people end a job: obeyed at once, raised, or noted and obeyed between two steps.

`end_on_signals`: Ctrl-C, SIGTERM and SIGHUP end the process with a line; for commands while their libraries load.
`stopped_by_signals`: SIGTERM and SIGHUP (a closed terminal) raise, as Ctrl-C does, so that everything is cleaned up.
`StopRequest`: SIGTERM, SIGHUP, SIGUSR1 and Ctrl-C are noted, so that the step in progress is finished and saved.

Only a process's main thread can receive signals; in another thread the last two do nothing.

A command imports this module before all others, so it imports none that takes time.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any, Self

from shards.common.terminal import as_started

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
RAISED = (signal.SIGTERM, signal.SIGHUP)
NOTED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


# The command that the handler `_end` names, and its process; empty where no command runs.
_prog, _process = "", 0


def end_on_signals(prog: str) -> None:
    """From now on Ctrl-C, SIGTERM and SIGHUP end the process at once: one line, and status 128 + signal.

    Without this, Python shows a traceback after Ctrl-C while it imports, and nothing after the others. A rank of
    torchrun leaves SIGTERM and SIGHUP to the system, because Python's handlers wait for an exchange between ranks to
    end. Signals that are ignored (nohup) stay so.
    """
    global _prog, _process
    _prog, _process = prog, os.getpid()
    for number in ENDING[:1] if "RANK" in os.environ else ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)


def interrupts_raise() -> None:
    """Ctrl-C raises KeyboardInterrupt again: what runs now has something to clean up."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextlib.contextmanager
def interrupts_end() -> Iterator[None]:
    """In the block, where libraries load, Ctrl-C ends a command as `end_on_signals` says."""
    here = _prog and threading.current_thread() is threading.main_thread()
    if here and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)
    try:
        yield
    finally:
        if here:
            interrupts_raise()


def _end(number: int, _: FrameType | None) -> None:
    if os.getpid() != _process:  # a forked worker, whose parent ends it and has the word
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    if os.environ.get("RANK", "0") == "0":
        what = "interrupted" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}"
        with contextlib.suppress(OSError):
            again = "\r\x1b[K" if os.isatty(2) else ""  # in place of what stands on the line
            os.write(2, f"{again}{as_started(_prog)}: {what}\n".encode())
    os._exit(128 + number)


class StoppedBySignal(SystemExit):
    """A signal ends the process, with status 128 + signal, as shells count. `name`: of the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.name = signal.Signals(number).name


@contextlib.contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Raises StoppedBySignal in the block when a signal arrives, once; signals ignored before (nohup) stay so.

    Says "stopping ..." at once, also after Ctrl-C, which raises KeyboardInterrupt: what cleans up may take seconds.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in RAISED}
    handled = [number for number in RAISED if before[number] is not signal.SIG_IGN]

    def stop(number: int, _: FrameType | None) -> None:
        # Schedulers repeat themselves; a second signal must not interrupt the cleaning up.
        for each in handled:
            signal.signal(each, signal.SIG_IGN)
        _say_stopping()
        raise StoppedBySignal(number)

    def interrupt(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.default_int_handler)  # a second Ctrl-C has no more to say
        _say_stopping()
        signal.default_int_handler(number, frame)

    for number in handled:
        signal.signal(number, stop)
    heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if heard:
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        for number in handled:
            signal.signal(number, before[number])
        if heard:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _say_stopping() -> None:
    """On a line of its own, below a progress bar; not through the buffers of `sys.stderr`, which may be in use."""
    with contextlib.suppress(OSError):
        os.write(2, b"\nstopping ...\n" if os.isatty(2) else b"stopping ...\n")


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
