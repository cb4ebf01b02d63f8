"""SIGKILL at any moment: nothing half-written is taken for whole, and what follows ends as if it had not been."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT
from tests.helpers.jobs import BROKEN, folder


def killed(what: str, source: Path, out: Path, *options: str) -> int:
    settings = ["--short-side", "16", "--shard-size", "4", "--workers", "1", "--max-rejects", "0.5"]
    command = [sys.executable, "-m", "tests.helpers.kill", what, str(out), str(source), *settings, *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_a_job_killed_at_twenty_random_moments_ends_the_same(tmp_path: Path) -> None:
    source = folder(tmp_path / "source", {"train": 250, "validation": 30}, {"train/a/x.jpg": BROKEN})
    killed("random", source, tmp_path / "out")


@pytest.mark.slow
def test_a_job_killed_before_each_change_of_a_name_ends_the_same(tmp_path: Path) -> None:
    source = folder(tmp_path / "source", {"train": 5}, {"train/a/x.jpg": BROKEN})
    steps = killed("steps", source, tmp_path / "out", "--force")
    # Two shards of three files and a marker, two tables of the split, the plan and the manifest: each is renamed.
    assert steps > 2 * 4 + 4
