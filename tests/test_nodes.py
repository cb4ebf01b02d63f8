"""Two nodes: two torchrun agents on this machine, two ranks each, gloo, a rendezvous on loopback; one of them dies."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shards.dataset import open_dataset
from shards.order import epoch_order
from tests.job_helpers import ROOT, wait_until
from tests.training_helpers import write_dataset

# Samples, every one with a label of its own; a step of the optimizer; steps until the second node dies.
SAMPLES, BATCH, DEATH = 192, 16, 5


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def agent(host: bool, port: int, notes: Path, *words: object) -> "subprocess.Popen[bytes]":
    """torchrun as it runs on one node, in a process group of its own: what dies when a node does."""
    quick = "keep_alive_interval=1,keep_alive_max_attempt=3,last_call_timeout=2"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "1:2", "--nproc-per-node", "2"]
    torchrun += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "nodes"]
    torchrun += ["--rdzv-conf", f"is_host={str(host).lower()},{quick}", "--local-addr", "127.0.0.1"]
    torchrun += ["--max-restarts", "3", "--monitor-interval", "0.2"]
    return subprocess.Popen(
        [*torchrun, "-m", "tests.node_worker", str(notes), *map(str, words)],
        cwd=ROOT,
        # A store that outlives a restart still holds the addresses of ranks that are gone (pytorch/pytorch#135712).
        env={**os.environ, "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"},
        start_new_session=True,
        stdout=(notes.parent / f"{'first' if host else 'second'}.log").open("w"),
        stderr=subprocess.STDOUT,
    )


def seen(notes: Path) -> list[dict[str, Any]]:
    """Every batch that any rank was given."""
    lines = [line for path in notes.iterdir() for line in path.read_text().splitlines(keepends=True)]
    return [json.loads(line) for line in lines if line.endswith("\n")]


@pytest.mark.slow
def test_a_node_dies_in_an_epoch_and_the_other_sees_exactly_its_rest(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", {"train": SAMPLES, "validation": 4}, classes=SAMPLES)
    notes, out = tmp_path / "notes", tmp_path / "out"
    notes.mkdir()
    words = ["--data", data, "--out", out, "--device", "cpu", "--size", 16, "--threads", 1, "--model", "tiny"]
    words += ["--epochs", 1, "--batch", BATCH, "--micro-batch", 4, "--checkpoint-minutes", 0.0001, "--log-every", 1]
    port = free_port()
    nodes = [agent(host, port, notes, *words) for host in (True, False)]
    try:
        wait_until(lambda: max((each["position"] for each in seen(notes)), default=0) >= DEATH * BATCH, 150)
        kill_node(nodes[1])
        nodes[0].wait(timeout=150)
    finally:
        for node in nodes:
            kill_node(node)
    assert nodes[0].returncode == 0, (tmp_path / "first.log").read_text()[-4000:]

    before = [each for each in seen(notes) if each["size"] == 4]
    after = [each for each in seen(notes) if each["size"] == 2]
    assert {each["rank"] for each in before} == {0, 1, 2, 3}
    assert {each["rank"] for each in after} == {0, 1}
    entered = min(each["position"] for each in after)
    assert 0 < entered <= max(each["position"] for each in before)

    # Every global batch, on four ranks and on two, holds what the order says; together each sample once.
    order = epoch_order(open_dataset(data)["train"].index.shard, "global", 0, 0)
    counted = [each for each in before if each["position"] < entered] + after
    for position in range(0, SAMPLES, BATCH):
        of_step = [each for each in counted if position <= each["position"] < position + BATCH]
        labels = [label for each in of_step for label in each["labels"]]
        assert sorted(labels) == sorted(np.asarray(order[position : position + BATCH]).tolist())

    # As many optimizer steps as without the accident, each of as many images: two micro-batches a rank make up for
    # the ranks that are gone.
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["event"] == "train"] == list(range(1, SAMPLES // BATCH + 1))


def kill_node(agent: "subprocess.Popen[bytes]") -> None:
    """Ends an agent and its ranks, which have sessions of their own, at once, as a power cut does."""
    if agent.poll() is not None:
        return
    ranks = [int(child) for child in Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()]
    for process in [agent.pid, *ranks]:
        os.kill(process, signal.SIGKILL)
    agent.wait()
