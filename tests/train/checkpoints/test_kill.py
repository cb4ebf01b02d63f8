"""SIGKILL at any moment of a training run, in real processes: the same command ends it as if nothing had happened."""

from pathlib import Path

import pytest

from tests.helpers.kill import kill_in_a_process_of_its_own
from tests.helpers.training import write_dataset


@pytest.mark.slow
def test_a_run_killed_at_ten_random_moments_ends_with_the_same_bits(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", {"train": 38, "validation": 7})
    sizes = "--model tiny --size 16 --batch-size 8 --micro-batch 4 --epochs 6 --ema 0.9 --device cpu --threads 1"
    words = ["--data", data, *sizes.split(), "--log-every", 3, "--checkpoint-minutes", 1e-6]
    steps = kill_in_a_process_of_its_own("training", "random", tmp_path / "out", *words)
    assert len(steps) == 10
    assert len(set(steps)) > 5  # seven of them have their own part of the training
