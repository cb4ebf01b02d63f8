"""Kills a training run with SIGKILL at random moments, and goes on with it: python -m tests.helpers.kill_training OUT WORDS...

Importing the libraries costs seconds, so that is done once: every start of the program is a fork.
"""

import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import torch

import shards.loader  # noqa: F401  # imported before forking, like the next two
import train.curves
import train.engine
from tests.helpers.kill import fork, status_of
from tests.helpers.resume import assert_same, tiny_models
from train.__main__ import main
from train.checkpoints.resume import CHECKPOINTS, LAST, read_checkpoint
from train.report.metrics import TOTAL_TIME

KILLS = 10


def kill_at_random(out: Path, words: list[str]) -> list[int]:
    """Trains into OUT.whole undisturbed, and into OUT with kills: both must be the same to the bit.

    A run that ends before its moment has come is compared as well, and begun anew. Returns the optimizer steps that
    were saved at each kill.
    """
    whole = out.with_name("whole")
    assert status_of(fork(lambda: main([*words, "--out", str(whole)]))) == 0
    # What numba compiles has been compiled once; now a run takes as long as those that are killed.
    last = out / CHECKPOINTS / LAST
    started = time.monotonic()
    process = fork(lambda: main([*words, "--out", str(out)]))
    while not last.exists():
        time.sleep(0.001)
    first = time.monotonic() - started
    assert status_of(process) == 0
    shutil.rmtree(out)
    longest, moments, steps = time.monotonic() - started, random.Random(0), list[int]()
    while len(steps) < KILLS:
        process = fork(lambda: main([*words, "--out", str(out)]))
        time.sleep(moments.uniform(0.8 * first, longest))
        os.kill(process, signal.SIGKILL)
        if status_of(process) == -signal.SIGKILL and not (out / TOTAL_TIME).exists():
            steps.append(read_checkpoint(last)["step"] if last.exists() else 0)
        else:
            assert_same(out, whole)
            shutil.rmtree(out)
    assert status_of(fork(lambda: main([*words, "--out", str(out)]))) == 0
    assert_same(out, whole)
    return steps


if __name__ == "__main__":
    torch.set_num_threads(1)
    with tiny_models() as patch:
        patch.setattr(train.curves, "draw", lambda out: None)  # half of the time of so short a run
        patch.setattr("train.checkpoints.saver.AGREE_S", 0.0)  # saved after every step
        print(*kill_at_random(Path(sys.argv[1]), sys.argv[2:]))
