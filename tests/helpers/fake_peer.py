"""A peer for the tests of the protocol; the task's options say what it does."""

import contextlib
import os
import time
from collections.abc import Iterator

import torch

from benchmarks.processes.task import Batch, Peer, PeerTask


def peer(task: PeerTask) -> Peer:
    """mode: well, dies, cannot start."""
    mode = task.options["mode"]
    print("a library that prints to stdout")
    if mode == "cannot start":
        raise RuntimeError("no engine\nsecond line")
    return Peer(lambda: _batches(task), {"mode": mode}, depth=1)


@contextlib.contextmanager
def _batches(task: PeerTask) -> Iterator[Iterator[Batch]]:
    yield _stream(task)


def _stream(task: PeerTask) -> Iterator[Batch]:
    if task.options["mode"] == "dies":
        os._exit(3)
    batch = task.batch
    while True:
        time.sleep(0.001)
        images = torch.zeros(batch.batch_size, 3, batch.size, batch.size)
        yield images, torch.zeros(batch.batch_size, dtype=torch.int64)
