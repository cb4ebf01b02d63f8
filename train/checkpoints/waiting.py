"""Lets a signal end a wait for a batch that does not come, from a server that stalls for instance.

The saver obeys signals between two steps. Where no batch comes there is no next step: a thread watches how long the
main thread waits, and interrupts it. One that comes within GRACE_S is still trained on.
"""

import itertools
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any, Self

from torch import Tensor

from shards.common.signals import StopRequest
from train.data import Batches, skipped

GRACE_S, LOOK_S = 2.0, 0.25


class Interrupted(Exception):
    """A signal asks the run to stop, and the batch that the loop waits for does not come."""


class BatchWait:
    """While entered, `for_batch` raises Interrupted some time after a signal. Does nothing in other threads."""

    def __init__(self, stop: StopRequest) -> None:
        self._stop = stop
        self._since: float | None = None
        self._done = threading.Event()
        self._main = threading.main_thread()
        self._watcher = threading.Thread(target=self._watch, name="batch-wait", daemon=True)
        self._before: Any = None

    def __enter__(self) -> Self:
        if threading.current_thread() is self._main:
            self._before = signal.signal(signal.SIGALRM, self._interrupt)
            self._watcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        if self._watcher.is_alive():
            self._watcher.join()
            signal.signal(signal.SIGALRM, self._before)

    def for_batch(self, batches: Iterator[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor] | None:
        """The next batch, or None after the last one."""
        self._since = time.monotonic()
        try:
            return next(batches, None)
        finally:
            self._since = None

    def _watch(self) -> None:
        while not self._done.wait(LOOK_S):
            since = self._since
            if self._stop.number and since is not None and time.monotonic() - since >= GRACE_S:
                signal.pthread_kill(self._main.ident or 0, signal.SIGALRM)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        """Runs in the main thread, also while it waits for a lock, and raises there."""
        if self._since is not None:
            self._since = None
            raise Interrupted


@dataclass(frozen=True)
class Watched:
    """Batches for which a wait can be interrupted. `before` is called before each, with its number from 0."""

    batches: Batches
    wait: BatchWait
    before: Callable[[int], None]

    @property
    def skipped(self) -> int:
        """Damaged samples so far."""
        return skipped(self.batches)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        iterator = iter(self.batches)
        for number in itertools.count():
            self.before(number)
            batch = self.wait.for_batch(iterator)
            if batch is None:
                return
            yield batch
