"""A decoder that returns at once, in the place of the DALI graph: what is left is the loader's own work.

Order, windows, reading, threads and queues stay as they are; pixels are STUB_SIDE squares that nobody decoded. So
images/s with it say how far the loader's Python thread would go if decoding cost nothing.
"""

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import torch

from shards.decode.finish import Finisher
from shards.decode.graph import PREFETCH, Graph
from shards.decode.stored_pixels import Cutter, Rows
from shards.feed.read import Use
from shards.sampling.crops import Windows

# Side of the squares: so small that flipping and normalising them costs nothing either.
STUB_SIDE = 8


class _Output:
    """What one image or batch of DALI's output offers."""

    def __init__(self, images: torch.Tensor) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def as_tensor(self) -> torch.Tensor:
        return self._images

    def __getitem__(self, position: int) -> Any:
        return self._images[position].numpy()


class _Stub:
    """What the producer asks of a pipeline: batches in order, PREFETCH of them fed ahead."""

    def __init__(self, source: Callable[[], Any]) -> None:
        self._source = source
        self._fed: deque[int] = deque()

    def run(self, stream: Any = None) -> tuple[_Output]:
        while len(self._fed) <= PREFETCH:
            self._fed.append(len(self._source()[0]))
        return (_Output(torch.zeros((self._fed.popleft(), STUB_SIDE, STUB_SIDE, 3), dtype=torch.uint8)),)


class IdleFinisher:
    """In the place of shards.decode.finish.Finisher: whatever it is told to do, it does nothing and returns at once."""

    def __init__(self, threads: int) -> None:
        self._pixels = np.zeros((1, 1, 1, 1), np.uint8)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *_, **__: self._pixels


class IdleCutter(Cutter):
    """In the place of shards.decode.stored_pixels.Cutter: the bytes are read, and nothing is made of them."""

    def take(self, count: int, size: int) -> npt.NDArray[Any]:
        return np.zeros((count, 1), np.uint8)

    def into(self, images: npt.NDArray[Any], positions: Sequence[int], rows: Rows, cut: Windows) -> Use:
        return lambda i, data: None


@contextlib.contextmanager
def instant_decoder(resizes: bool = False) -> Iterator[None]:
    """Loaders made inside the block, for JPEG shards and batches on the CPU, decode nothing.

    resizes: windows are not of the output's size, so what follows the decoder is left out too: it would resize.
    """

    def build(graph: Graph, source: Callable[[], Any]) -> Any:
        return _Stub(source)

    finisher = IdleFinisher if resizes else Finisher
    with mock.patch("shards.feed.loop.build", build), mock.patch("shards.feed.loop.Finisher", finisher):
        yield
