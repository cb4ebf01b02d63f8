"""SIGKILL at any moment: no unfinished file is taken for finished, and the same command ends with the same bytes."""

from pathlib import Path

import pytest

from tests.helpers.jobs import BROKEN, folder
from tests.helpers.kill import kill_in_a_process_of_its_own

SETTINGS = ["--short-side", "16", "--shard-size", "4", "--workers", "1", "--max-rejects", "0.5"]


@pytest.mark.slow
def test_a_job_killed_at_twenty_random_moments_ends_the_same(tmp_path: Path) -> None:
    source = folder(tmp_path / "source", {"train": 160, "validation": 15}, {"train/a/x.jpg": BROKEN})
    progress = kill_in_a_process_of_its_own("conversion", "random", tmp_path / "out", source, *SETTINGS)
    assert len(progress) == 20
    assert len(set(progress)) > 10  # fifteen of them have their own part of the job


@pytest.mark.slow
def test_a_job_killed_before_each_change_of_a_name_ends_the_same(tmp_path: Path) -> None:
    source = folder(tmp_path / "source", {"train": 5}, {"train/a/x.jpg": BROKEN})
    [steps] = kill_in_a_process_of_its_own("conversion", "steps", tmp_path / "out", source, *SETTINGS, "--force")
    # Two shards of three files and a marker, two tables of the split, the plan and the manifest: each is renamed.
    assert steps > 2 * 4 + 4
