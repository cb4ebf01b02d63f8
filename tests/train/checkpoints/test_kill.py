"""SIGKILL at any moment of a training run, in real processes: the same command ends it as if nothing had happened."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT
from tests.helpers.training import write_dataset


@pytest.mark.slow
def test_a_run_killed_at_ten_random_moments_ends_with_the_same_bits(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", {"train": 38, "validation": 7})
    sizes = "--model tiny --size 16 --batch 8 --micro-batch 4 --epochs 8 --ema 0.9 --device cpu --threads 1"
    words = ["--data", data, *sizes.split(), "--log-every", 3, "--checkpoint-minutes", 1e-6]
    done = subprocess.run(
        [sys.executable, "-m", "tests.helpers.kill_training", str(tmp_path / "out"), *map(str, words)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    steps = [int(word) for word in done.stdout.split()]
    assert len(steps) == 10
    assert len(set(steps)) > 2  # so there were moments in the middle of the training
