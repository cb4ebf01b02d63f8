"""A rank of tests/train/ranks/test_nodes.py: `python -m train` that writes down which samples it was given.

torchrun ... tests/helpers/node_worker.py NOTES [options of train]
"""

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import shards.loader
from tests.helpers.resume import tiny_models
from train.__main__ import main

# Between two batches: long enough for a test to see how far an epoch has come.
PAUSE = 0.15


def noted(notes: Path) -> Any:
    """`Loader.__iter__` that writes down the labels of every batch, and the position of its global batch."""
    plain = shards.loader.Loader.__iter__
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])

    def iterate(loader: shards.loader.Loader) -> Iterator[Any]:
        share = loader._share
        for images, labels in plain(loader):
            if share.drop_last:  # not validation
                position = loader.state_dict()["position"] - share.global_batch
                line = {"position": position, "rank": rank, "size": size, "labels": labels.tolist()}
                line["process"] = os.getpid()
                with (notes / f"{os.getpid()}.jsonl").open("a") as file:
                    file.write(json.dumps(line) + "\n")
                time.sleep(PAUSE)
            yield images, labels

    return iterate


if __name__ == "__main__":
    # A fork has torchrun's handlers, a program of its own has none.
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    shards.loader.Loader.__iter__ = noted(Path(sys.argv[1]))  # type: ignore[method-assign]
    with tiny_models():
        sys.exit(main(sys.argv[2:]))
