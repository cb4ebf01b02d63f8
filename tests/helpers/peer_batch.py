"""python -m tests.helpers.peer_batch MODULE TASK FILE: stores the first batch of a peer; run in its environment."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np

from benchmarks.processes.task import PeerTask


def save(module: str, task: PeerTask, file: Path) -> None:
    """Saves images (n, 3, height, width) and labels (n,) to an .npz."""
    made = importlib.import_module(f"benchmarks.peers.{module}").peer(task)
    with made.open() as batches:
        images, labels = next(batches)
        np.savez(file, images=images.numpy(), labels=labels.numpy())


if __name__ == "__main__":
    save(sys.argv[1], PeerTask.from_json(json.loads(sys.argv[2])), Path(sys.argv[3]))
