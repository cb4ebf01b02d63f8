"""python -m benchmarks.processes.serve MODULE JOB: one contender in its own process, run by benchmarks/processes/remote.py.

Answers each line on stdin with a line of JSON on what was stdout when it started (the contender's own prints go to
stderr):

    (start)                   {"settings": {...}}                     ready; or {"error": "...", "usage": ..}
    measure SECONDS WARM_UP   {"images": .., "seconds": .., "cpu": ..}  one turn, as benchmarks/measure/harness.py defines it

and ends when stdin does. The environment may be one that holds other versions than this project's.
"""

import functools
import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.measure.harness import Contender, Schedule
from benchmarks.peers.naive import Batch, Recipe
from benchmarks.processes.job import Job, Peer
from shards.common.errors import ShardfeedError, UsageError


def main(module: str, text: str) -> None:
    """Serves until stdin ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(make: Callable[[], dict[str, Any]]) -> bool:
        try:
            value, fine = make(), True
        except Exception as error:
            # One line for the table; the traceback is on stderr for whoever wants to mend it.
            import traceback

            traceback.print_exc()
            ours = isinstance(error, ShardfeedError)
            message = str(error) if ours else f"{type(error).__name__}: {error}".partition("\n")[0]
            value, fine = {"error": message, "usage": isinstance(error, UsageError)}, False
        print(json.dumps(value), file=answers, flush=True)
        return fine

    job = Job.from_json(json.loads(text))
    made: list[Contender] = []

    def start() -> dict[str, Any]:
        peer: Peer = importlib.import_module(module).peer(job)
        images = peer.images or Check(job.recipe, len(job.opened().class_names))
        made.append(Contender(module, peer.open, images, peer.depth, peer.stride, peer.sync))
        return {"settings": dict(peer.settings)}

    def measure(seconds: str, warm_up: str) -> dict[str, Any]:
        schedule = Schedule(seconds=float(seconds), warm_up=int(warm_up))
        window = made[0].turn(schedule, time.perf_counter)
        return {"images": window.images, "seconds": window.seconds, "cpu": window.cpu}

    if not answer(start):
        return
    for line in sys.stdin:
        answer(functools.partial(measure, *line.split()[1:]))


class Check:
    """How many images a batch holds. Raises ShardfeedError if it is not what the recipe says."""

    def __init__(self, recipe: Recipe, classes: int) -> None:
        self._shape = (recipe.batch_size, 3, recipe.size, recipe.size)
        self._dtype = getattr(torch, recipe.dtype)
        self._classes = classes
        self._fresh = True

    def __call__(self, batch: Batch) -> int:
        images, labels = batch
        given = (tuple(images.shape), images.dtype, tuple(labels.shape), labels.dtype)
        if given != (self._shape, self._dtype, self._shape[:1], torch.int64):
            raise ShardfeedError(
                f"expected images {self._shape} {self._dtype} and int64 labels, got {given[0]} {given[1]} "
                f"and {given[2]} {given[3]}"
            )
        # Values are looked at once: on a GPU that waits for the device.
        if self._fresh and not 0 <= int(labels.min()) <= int(labels.max()) < self._classes:
            raise ShardfeedError(f"labels go from {int(labels.min())} to {int(labels.max())}, of {self._classes}")
        self._fresh = False
        return self._shape[0]


if __name__ == "__main__":
    main(*sys.argv[1:])
