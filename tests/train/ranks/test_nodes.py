"""Ranks and nodes that die under torchrun, on this machine and gloo: the job says so, or goes on with what is left."""

import json
import os
import signal
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shards.dataset import open_dataset
from shards.sampling.order import epoch_order
from tests.helpers import node_worker
from tests.helpers.kill import kill_tree, wait_until
from tests.helpers.ranks import free_ports, torchrun
from tests.helpers.training import write_dataset

# Samples, every one with a label of its own; a step of the optimizer; steps until the second node dies.
SAMPLES, BATCH, DEATH = 192, 16, 5


def agent(host: bool, port: int, notes: Path, *words: object) -> BaseProcess:
    """torchrun as it runs on one node."""
    quick = "keep_alive_interval=1,keep_alive_max_attempt=3,last_call_timeout=2"
    meeting = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "nodes"]
    meeting += ["--rdzv-conf", f"is_host={str(host).lower()},{quick}", "--local-addr", "127.0.0.1"]
    log = notes.parent / f"{'first' if host else 'second'}.log"
    return torchrun(log, "--nnodes", "1:2", *meeting, "--max-restarts", 3, *of_two_ranks(notes), *words)


def standalone(notes: Path, restarts: int, interval: float, *words: object) -> BaseProcess:
    """torchrun as it runs on one machine; it looks for ranks that have died every `interval` seconds."""
    log = notes.parent / "standalone.log"
    return torchrun(log, "--standalone", "--max-restarts", restarts, *of_two_ranks(notes, interval), *words)


def of_two_ranks(notes: Path, interval: float = 0.2) -> list[object]:
    return ["--nproc-per-node", 2, "--monitor-interval", interval, node_worker.__file__, notes]


def seen(notes: Path) -> list[dict[str, Any]]:
    """Every batch that any rank was given."""
    lines = [line for path in notes.iterdir() for line in path.read_text().splitlines(keepends=True)]
    return [json.loads(line) for line in lines if line.endswith("\n")]


@pytest.mark.slow
def test_a_node_dies_in_an_epoch_and_the_other_sees_exactly_its_rest(tmp_path: Path) -> None:
    notes, words = job(tmp_path)
    [port] = free_ports(1)
    nodes = [agent(host, port, notes, *words) for host in (True, False)]
    try:
        wait_until(lambda: reached(notes, DEATH), 150)
        kill_tree(nodes[1])
        nodes[0].join(150)
    finally:
        for node in nodes:
            kill_tree(node)
    assert nodes[0].exitcode == 0, (tmp_path / "first.log").read_text()[-4000:]

    before = [each for each in seen(notes) if each["size"] == 4]
    after = [each for each in seen(notes) if each["size"] == 2]
    assert {each["rank"] for each in before} == {0, 1, 2, 3}
    assert {each["rank"] for each in after} == {0, 1}
    entered = min(each["position"] for each in after)
    assert 0 < entered <= max(each["position"] for each in before)
    # Each step of as many images: two micro-batches a rank make up for the ranks that are gone.
    assert_in_order(tmp_path, [each for each in before if each["position"] < entered] + after)


@pytest.mark.slow
def test_a_rank_that_dies_ends_the_job_with_a_line_that_says_so(tmp_path: Path) -> None:
    notes, words = job(tmp_path)
    node = standalone(notes, 0, 3.0, *words)  # time for the other rank to speak before torchrun ends it
    try:
        wait_until(lambda: reached(notes, 2), 150)
        os.kill(process_of(1, notes), signal.SIGKILL)
        node.join(60)
        assert node.exitcode == 1
    finally:
        kill_tree(node)
    said = (tmp_path / "standalone.log").read_text()
    assert "rank 0 has lost the other ranks" in said
    assert "give the same command again to go on from the last checkpoint" in said


@pytest.mark.slow
def test_the_main_rank_dies_and_is_started_again_and_the_job_goes_on(tmp_path: Path) -> None:
    notes, words = job(tmp_path)
    node = standalone(notes, 2, 0.2, *words)
    try:
        wait_until(lambda: reached(notes, DEATH), 150)
        first = {each["process"] for each in seen(notes)}
        os.kill(process_of(0, notes), signal.SIGKILL)
        node.join(150)
        assert node.exitcode == 0, (tmp_path / "standalone.log").read_text()[-4000:]
    finally:
        kill_tree(node)
    after = [each for each in seen(notes) if each["process"] not in first]
    entered = min(each["position"] for each in after)
    assert entered > 0
    before = [each for each in seen(notes) if each["process"] in first and each["position"] < entered]
    assert_in_order(tmp_path, before + after)


def job(root: Path) -> tuple[Path, list[object]]:
    """Where the ranks of a job write their notes, and its options."""
    data = write_dataset(root / "data", {"train": SAMPLES, "validation": 4}, classes=SAMPLES)
    notes = root / "notes"
    notes.mkdir()
    words = ["--data", data, "--out", root / "out", "--device", "cpu", "--size", 16, "--threads", 1, "--model", "tiny"]
    words += [
        "--epochs",
        1,
        "--batch-size",
        BATCH,
        "--micro-batch",
        4,
        "--checkpoint-minutes",
        0.0001,
        "--log-every",
        1,
    ]
    return notes, words


def reached(notes: Path, steps: int) -> bool:
    return max((each["position"] for each in seen(notes)), default=0) >= steps * BATCH


def process_of(rank: int, notes: Path) -> int:
    (process,) = {int(each["process"]) for each in seen(notes) if each["rank"] == rank}
    return process


def assert_in_order(root: Path, counted: list[dict[str, Any]]) -> None:
    """Every global batch holds what the order says, together each sample once; each step was taken."""
    order = epoch_order(open_dataset(root / "data")["train"].index.shard, "global", 0, 0)
    for position in range(0, SAMPLES, BATCH):
        of_step = [each for each in counted if position <= each["position"] < position + BATCH]
        labels = [label for each in of_step for label in each["labels"]]
        assert sorted(labels) == sorted(np.asarray(order[position : position + BATCH]).tolist())
    lines = [json.loads(line) for line in (root / "out" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["event"] == "train"] == list(range(1, SAMPLES // BATCH + 1))
