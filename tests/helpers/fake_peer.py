"""A contender for the tests of the protocol: what it does is in the job's options."""

import contextlib
import os
import time
from collections.abc import Iterator

import torch

from benchmarks.peers.naive import Batch
from benchmarks.processes.job import Job, Peer


def peer(job: Job) -> Peer:
    """mode: well, dies, cannot start."""
    mode = job.options["mode"]
    print("a library that prints to stdout")
    if mode == "cannot start":
        raise RuntimeError("no engine\nsecond line")
    return Peer(lambda: _batches(job), {"mode": mode}, depth=1)


@contextlib.contextmanager
def _batches(job: Job) -> Iterator[Iterator[Batch]]:
    yield _stream(job)


def _stream(job: Job) -> Iterator[Batch]:
    if job.options["mode"] == "dies":
        os._exit(3)
    recipe = job.recipe
    while True:
        time.sleep(0.001)
        images = torch.zeros(recipe.batch_size, 3, recipe.size, recipe.size)
        yield images, torch.zeros(recipe.batch_size, dtype=torch.int64)
