"""python -m benchmarks.processes.serve MODULE TASK: one peer in its own process, started by process.py in this folder.

Answers each line on stdin with a line of JSON on the original stdout; the peer's own prints go to stderr:

    (start)                   {"settings": {...}}                        ready; or {"error": "...", "usage": ..}
    measure SECONDS WARM_UP   {"images": .., "seconds": .., "cpu": ..}   one turn, as in benchmarks/measure/harness.py

and ends when stdin does. The environment may hold other versions of libraries than this project's.
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
from benchmarks.measure.settings import BatchSpec
from benchmarks.processes.task import Batch, Peer, PeerTask
from shards.common.errors import ShardfeedError, UsageError


def main(module: str, text: str) -> None:
    """Serves until stdin ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(make: Callable[[], dict[str, Any]]) -> bool:
        try:
            value, fine = make(), True
        except Exception as error:
            # The answer holds one line for the table; the traceback goes to stderr.
            import traceback

            traceback.print_exc()
            ours = isinstance(error, ShardfeedError)
            message = str(error) if ours else f"{type(error).__name__}: {error}".partition("\n")[0]
            value, fine = {"error": message, "usage": isinstance(error, UsageError)}, False
        print(json.dumps(value), file=answers, flush=True)
        return fine

    task = PeerTask.from_json(json.loads(text))
    made: list[Contender] = []

    def start() -> dict[str, Any]:
        peer: Peer = importlib.import_module(module).peer(task)
        images = peer.images or Check(task.batch, len(task.open_split().class_names))
        most = None if task.reads == "memory" else len(task.open_split())
        made.append(Contender(module, peer.open, images, peer.depth, peer.stride, peer.sync, most))
        return {"settings": dict(peer.settings)}

    def measure(seconds: str, warm_up: str) -> dict[str, Any]:
        schedule = Schedule(seconds=float(seconds), warm_up=int(warm_up))
        task.before_turn()
        interval = made[0].turn(schedule, time.perf_counter)
        return {"images": interval.images, "seconds": interval.seconds, "cpu": interval.cpu}

    if not answer(start):
        return
    for line in sys.stdin:
        answer(functools.partial(measure, *line.split()[1:]))


class Check:
    """Counts the images of a batch. Raises ShardfeedError if the batch is not what the task asks for."""

    def __init__(self, batch: BatchSpec, classes: int) -> None:
        self._shape = (batch.batch_size, 3, batch.size, batch.size)
        self._dtype = getattr(torch, batch.dtype)
        self._classes = classes
        self._first = True

    def __call__(self, batch: Batch) -> int:
        images, labels = batch
        given = (tuple(images.shape), images.dtype, tuple(labels.shape), labels.dtype)
        if given != (self._shape, self._dtype, self._shape[:1], torch.int64):
            raise ShardfeedError(
                f"expected images {self._shape} {self._dtype} and int64 labels, got {given[0]} {given[1]} "
                f"and {given[2]} {given[3]}"
            )
        # Only the first batch's values are looked at: on a GPU this waits for the device.
        if self._first and not 0 <= int(labels.min()) <= int(labels.max()) < self._classes:
            raise ShardfeedError(f"labels go from {int(labels.min())} to {int(labels.max())}, of {self._classes}")
        self._first = False
        return self._shape[0]


if __name__ == "__main__":
    main(*sys.argv[1:])
