"""The shards of several splits, under one numbering: each read goes to the split that a shard is of."""

import contextlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import numpy as np
import numpy.typing as npt

from shards.feed.read import Shards


class OpenShards(Shards, Protocol):
    """Shards whose waits can be ended, and which are closed."""

    def stop(self) -> None:
        """Ends all waits."""

    def close(self) -> None:
        """Closes the shards."""


class JoinedShards:
    """`parts`: open shards; `counts`: how many each has."""

    def __init__(self, parts: Sequence[OpenShards], counts: Sequence[int]) -> None:
        self._parts = parts
        self._starts = np.cumsum([0, *counts])

    def preadv(
        self, number: int, buffers: Sequence[memoryview], offset: int, stop: threading.Event | None = None
    ) -> int:
        """Reads bytes of a shard, as its part does."""
        part = int(self._part(number))
        return self._parts[part].preadv(number - int(self._starts[part]), buffers, offset, stop)

    def files(self, numbers: npt.NDArray[np.int32]) -> AbstractContextManager[npt.NDArray[np.intc]]:
        """Descriptors (n,) of these shards (n,), -1 for those that are no open files."""
        return self._files(numbers)

    @contextlib.contextmanager
    def _files(self, numbers: npt.NDArray[np.int32]) -> Iterator[npt.NDArray[np.intc]]:
        found, parts = np.full(len(numbers), -1, np.intc), self._part(numbers)
        with contextlib.ExitStack() as stack:
            for part in np.unique(parts):
                mine = parts == part
                own = (numbers[mine] - self._starts[part]).astype(np.int32)
                found[mine] = stack.enter_context(self._parts[part].files(own))
            yield found

    def announce(self, numbers: Sequence[int]) -> None:
        """Announces to each part those of its shards that are read next."""
        parts = self._part(np.array(numbers, np.int64))
        for part, shards in enumerate(self._parts):
            shards.announce([int(n - self._starts[part]) for n in np.array(numbers, np.int64)[parts == part]])

    def stop(self) -> None:
        """Ends all waits."""
        for part in self._parts:
            part.stop()

    def close(self) -> None:
        """Closes all parts."""
        for part in self._parts:
            part.close()

    def _part(self, number: npt.ArrayLike) -> npt.NDArray[np.int64]:
        return np.searchsorted(self._starts, number, "right") - 1
