"""The templates of docs/slurm, run as SLURM runs them: by bash, with the variables that it sets."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT
from tests.helpers.jobs import convert, folder, tree
from tests.helpers.kill import kill_when

TEMPLATES = ROOT / "docs" / "slurm"
SETTINGS = ["--short-side", "16", "--shard-size", "4"]


def environment(**variables: str) -> dict[str, str]:
    """What a job of this environment sees: `python` and `torchrun` are those that run the tests."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "SLURM_CPUS_PER_TASK": "1", **variables}


def task(number: int, source: Path, out: Path) -> "subprocess.Popen[str]":
    variables = {"SLURM_ARRAY_TASK_ID": str(number), "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_JOB_ID": "17"}
    words = ["bash", TEMPLATES / "preprocess.sh", "4", source, out, *SETTINGS, "--force"]
    return subprocess.Popen(
        [str(word) for word in words],
        cwd=ROOT,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(source: Path, out: Path) -> "subprocess.CompletedProcess[str]":
    words = ["bash", TEMPLATES / "finish.sh", source, out, *SETTINGS]
    return subprocess.run(
        [str(word) for word in words], cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=120
    )


@pytest.mark.slow
def test_an_array_of_four_one_of_them_killed_and_its_end_equal_one_run(tmp_path: Path) -> None:
    source, out = folder(tmp_path / "source", {"train": 120, "validation": 9}), tmp_path / "out"
    convert(source, tmp_path / "whole")
    tasks = [task(number, source, out) for number in range(4)]
    # The last one's shards are the last of the plan: once it has one, it is killed, as by a node that fails.
    mine = [f".work/{name}.json" for name in ("train-00025", "train-00026", "train-00027")]
    kill_when(tasks[3], lambda: any((out / name).exists() for name in mine))
    said = [each.communicate(timeout=120) for each in tasks]
    assert [each.returncode for each in tasks] == [0, 0, 0, -signal.SIGKILL], said
    early = finish(source, out)
    assert early.returncode == 1
    assert "Run the slices that hold them again (--tasks)" in early.stderr
    assert task(3, source, out).wait(120) == 0
    ended = finish(source, out)
    assert ended.returncode == 0, ended.stderr
    assert tree(out) == tree(tmp_path / "whole")


def test_training_starts_one_torchrun_on_each_node(tmp_path: Path) -> None:
    for name, body in {"scontrol": "echo node-a; echo node-b", "srun": 'printf "%s\\n" "$@"'}.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    variables = {
        "SLURM_JOB_NODELIST": "node-[a-b]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_GPUS_ON_NODE": "8",
        "SLURM_JOB_ID": "17",
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
    }
    words = ["bash", str(TEMPLATES / "train.sh"), "--data", "a b", "--epochs", "1"]
    ran = subprocess.run(words, env={**os.environ, **variables}, capture_output=True, text=True, check=True)
    expected = "torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint node-a:29500 --rdzv-id 17"
    assert ran.stdout.splitlines() == [
        *expected.split(),
        *["--max-restarts", "3", "-m", "train", "--data", "a b", "--epochs", "1"],
    ]
