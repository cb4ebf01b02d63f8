"""Ranks: who they are, and that two of them compute what one does (processes on gloo)."""

import contextlib
import dataclasses
import functools
import os
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import HashStore  # torch.distributed has it, but not its type

from shards.common.errors import ShardfeedError, UsageError
from shards.common.signals import StoppedBySignal
from tests import ROOT
from tests.helpers.ranks import on_two_ranks, torchrun
from tests.helpers.training import SILENT, FixedBatches, setup_of, write_dataset
from train.__main__ import HOLD_S, leave, main
from train.config import Config, Device
from train.engine import train_epoch
from train.ranks.distributed import (
    LeftAlone,
    World,
    average_statistics,
    joined,
    lost_rank,
    node_warning,
    read_world,
    sum_over_ranks,
    wait_for_all,
)
from train.report.accuracy import evaluate
from train.run import begin

CPU = torch.device("cpu")
CONFIG = Config(Path("unused"), batch=16, micro_batch=4, epochs=2, device="cpu", max_lr=0.02)


@pytest.mark.parametrize(
    ("environment", "device", "gpus", "expected"),
    [
        ({}, "auto", 0, World()),
        ({}, "cpu", 2, World()),
        ({}, "auto", 1, World(device=torch.device("cuda", 0))),
        ({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}, "cpu", 0, World(3, 4, 1, CPU)),
        # On the second machine of two GPUs each, the device follows the local rank and the data the global one.
        ({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}, "gpu", 2, World(3, 4, 1, torch.device("cuda", 1))),
    ],
)
def test_a_process_knows_its_place(environment: dict[str, str], device: Device, gpus: int, expected: World) -> None:
    assert read_world(environment, device, gpus) == expected


@pytest.mark.parametrize(
    ("environment", "device", "gpus", "message"),
    [
        ({}, "gpu", 0, "finds no GPU"),
        ({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}, "auto", 1, "start at most 1 on it"),
        # The first one says so too.
        ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}, "auto", 1, "2 processes were started"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "cpu", 0, "RANK must be from 0 to WORLD_SIZE - 1, that is 1, not 2"),
    ],
)
def test_a_place_that_does_not_exist_is_refused(
    environment: dict[str, str], device: Device, gpus: int, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        read_world(environment, device, gpus)


def test_only_rank_0_is_the_main_one() -> None:
    assert [World(rank, 3).is_main for rank in range(3)] == [True, False, False]


@pytest.mark.parametrize(("nodes", "restarts", "said"), [("3", "1", True), ("2", "1", False), ("3", "0", False)])
def test_agents_that_would_not_find_each_other_again_are_told_of(nodes: str, restarts: str, said: bool) -> None:
    warning = node_warning({"GROUP_WORLD_SIZE": nodes, "TORCHELASTIC_MAX_RESTARTS": restarts})
    assert (warning is not None and "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1" in warning) == said


def test_ranks_without_a_place_to_meet_are_told_to_use_torchrun(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    data = write_dataset(tmp_path, {"train": 8, "validation": 3})
    assert main(["--data", str(data), "--out", str(tmp_path / "out"), "--device", "cpu", "--size", "16"]) == 1
    said = capsys.readouterr().err
    assert "rank 1 of 2 did not find the others" in said
    assert "MASTER_ADDR" in said
    assert "start the ranks with torchrun" in said


@pytest.mark.parametrize(
    ("error", "device", "destroyed"),
    [
        (None, "cuda", True),
        (StoppedBySignal(15), "cuda", True),
        (LeftAlone(15), "cuda", False),
        (ShardfeedError("the disk is full"), "cuda", False),
        (KeyboardInterrupt(), "cuda", False),
        (ShardfeedError("the disk is full"), "cpu", True),
    ],
)
def test_a_rank_that_fails_does_not_wait_for_nccl(
    error: BaseException | None, device: str, destroyed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    world = World(0, 2, 0, torch.device(device))
    monkeypatch.setattr("train.ranks.distributed.read_world", lambda *_: world)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    monkeypatch.setattr(dist, "init_process_group", lambda *_, **__: calls.append("made"))
    monkeypatch.setattr(dist, "destroy_process_group", lambda: calls.append("destroyed"))
    with contextlib.nullcontext() if error is None else pytest.raises(type(error)), joined("auto"):
        if error is not None:
            raise error
    assert calls == ["made", "destroyed"][: 1 + destroyed]


@pytest.mark.parametrize(
    ("device", "offloads", "expected"),
    [("cpu", False, "gloo"), ("cpu", True, "gloo"), ("cuda", False, "nccl"), ("cuda", True, "cpu:gloo,cuda:nccl")],
)
def test_tensors_that_were_offloaded_can_be_exchanged(
    device: str, offloads: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NCCL knows only tensors on GPUs; clipping the gradients of offloaded weights exchanges their norm."""
    made: list[str] = []
    monkeypatch.setattr("train.ranks.distributed.read_world", lambda *_: World(0, 2, 0, torch.device(device)))
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    monkeypatch.setattr(dist, "init_process_group", lambda backend, **_: made.append(backend))
    monkeypatch.setattr(dist, "destroy_process_group", lambda: None)
    with joined("auto", offloads):
        assert made == [expected]


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (RuntimeError("[/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:41822"), True),
        (RuntimeError("[enforce fail at /gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 1800000ms"), True),
        (RuntimeError("Connection reset by peer"), True),
        (dist.DistBackendError("NCCL error: remote process exited or there was a network error"), True),
        (dist.DistBackendError("NCCL error: invalid usage (run with NCCL_DEBUG=WARN for details)"), False),
        (dist.DistBackendError("NCCL error: unhandled cuda error: out of memory"), False),
        (RuntimeError("No backend type associated with device type cpu; is it built with nccl?"), False),
        (RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"), False),
    ],
)
def test_only_errors_that_say_so_mean_a_lost_rank(error: RuntimeError, lost: bool) -> None:
    assert lost_rank(error) == lost


@pytest.mark.parametrize(
    ("status", "in_a_group", "ways"),
    [
        (0, True, ["sys 0"]),
        (1, False, ["sys 1"]),
        (1, True, ["os 1", "sys 1"]),  # os._exit does not return
        (143, False, ["os 143", "sys 143"]),
    ],
)
def test_a_rank_that_failed_leaves_at_once_and_so_does_a_stopped_run(
    status: int, in_a_group: bool, ways: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[str] = []
    monkeypatch.setattr(dist, "is_initialized", lambda: in_a_group)
    monkeypatch.setattr(os, "_exit", lambda status: taken.append(f"os {status}"))
    monkeypatch.setattr(sys, "exit", lambda status: taken.append(f"sys {status}"))
    leave(status)
    assert taken == ways


def test_a_rank_that_does_not_come_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    store = HashStore()
    store.set("loaders/1", "")
    monkeypatch.setattr(dist.distributed_c10d, "_get_default_store", lambda: store)
    monkeypatch.setattr("train.ranks.distributed.PATIENCE", timedelta(seconds=0.2))
    with pytest.raises(ShardfeedError, match=r"rank 0 waited 0:00:00.2.* at the point 'loaders', and rank 2 did not"):
        wait_for_all(World(0, 3), "loaders")


@dataclasses.dataclass(frozen=True)
class StoppedRank:
    """Rank 1 is stopped before an exchange: rank 0 gives it up after its patience."""

    def __call__(self, rank: int) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("train.ranks.distributed.PATIENCE", timedelta(seconds=2))
            began = time.monotonic()
            with pytest.raises(ShardfeedError, match="has lost the other ranks"):
                self._exchange_late()
            assert time.monotonic() - began < 20

    def _exchange_late(self) -> None:
        with joined("cpu") as world:
            sum_over_ranks(torch.zeros(1), world)
            time.sleep(6 * world.rank)
            sum_over_ranks(torch.zeros(1), world)


@pytest.mark.slow
def test_a_stopped_rank_is_given_up() -> None:
    on_two_ranks([StoppedRank()])


class Sample(nn.Module):
    """Batch norm without a say in the result: its statistics are watched, the linear layer is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3, affine=False)
        self.linear = nn.Linear(192, 10)

    def forward(self, images: Tensor) -> Tensor:
        self.norm(images)
        logits: Tensor = self.linear(images.flatten(1))
        return logits


def network() -> nn.Module:
    torch.manual_seed(1)
    return Sample().double()


def batches(sizes: list[int]) -> FixedBatches:
    made = FixedBatches(sizes, side=8)
    made.batches = [(images.double(), labels) for images, labels in made.batches]
    return made


def share(whole: FixedBatches, rank: int, world_size: int) -> FixedBatches:
    """The rank's positions of every global batch; a rank without any in a short batch has one batch less."""
    part = FixedBatches([])
    parts = [(images[rank::world_size], labels[rank::world_size]) for images, labels in whole]
    part.batches = [(images, labels) for images, labels in parts if len(labels)]
    return part


def train_and_evaluate(config: Config, world: World, training: FixedBatches, held_out: FixedBatches) -> dict[str, Any]:
    model, setup = network(), setup_of(config, world)
    run = begin(model, setup, len(training))
    losses = [train_epoch(run, training, SILENT, epoch) for epoch in (1, 2)]
    average_statistics(model, world)
    accuracy = evaluate(model, held_out, 9, setup)[0]
    return {"losses": losses, "accuracy": dataclasses.astuple(accuracy), "state": model.state_dict()}


def work(rank: int, out: Path) -> None:
    """What each of two processes does: its half of every batch, and of nine images to evaluate on."""
    with joined("cpu") as world:
        if rank:
            time.sleep(0.3)
            (out / "came").touch()
        wait_for_all(world, "a place")
        assert (out / "came").exists()
        training, held_out = share(batches([8] * 7), rank, 2), share(batches([4, 4, 1]), rank, 2)
        torch.save(train_and_evaluate(CONFIG, world, training, held_out), out / f"{rank}.pt")
    assert not dist.is_initialized()


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What rank 0 of 2, rank 1 of 2, and a process alone report of the same training."""
    out = tmp_path_factory.mktemp("ranks")
    on_two_ranks([functools.partial(work, out=out)])
    alone = dataclasses.replace(CONFIG, micro_batch=8)
    report = train_and_evaluate(alone, World(), batches([8] * 7), batches([4, 4, 1]))
    return [*(torch.load(out / f"{rank}.pt", weights_only=True) for rank in range(2)), report]


@pytest.mark.slow
def test_evaluation_over_two_ranks_counts_every_image_once(reports: list[dict[str, Any]]) -> None:
    first, second, alone = (report["accuracy"] for report in reports)
    assert first == second
    assert first == pytest.approx(alone)
    assert first[3] == 9


@pytest.mark.slow
def test_two_ranks_learn_what_one_does(reports: list[dict[str, Any]]) -> None:
    first, second, alone = reports
    assert first["losses"] == second["losses"] == pytest.approx(alone["losses"], rel=1e-5)
    for name in ("linear.weight", "linear.bias"):
        assert torch.equal(first["state"][name], second["state"][name])
        torch.testing.assert_close(first["state"][name], alone["state"][name], rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_batch_statistics_are_the_same_on_every_rank_after_an_epoch(reports: list[dict[str, Any]]) -> None:
    first, second, alone = (report["state"] for report in reports)
    assert torch.equal(first["norm.running_mean"], second["norm.running_mean"])
    assert torch.equal(first["norm.running_var"], second["norm.running_var"])
    torch.testing.assert_close(first["norm.running_mean"], alone["norm.running_mean"])  # means of halves do average


@pytest.mark.slow
def test_torchrun_trains_on_two_processes(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", {"train": 40, "validation": 7})
    words = ["--data", data, "--out", tmp_path / "out", "--device", "cpu", "--size", "16", "--threads", "1"]
    words += ["--epochs", "1", "--batch-size", "32", "--micro-batch", "8"]
    node = torchrun(tmp_path / "log", "--standalone", "--nproc-per-node", "2", ROOT / "train" / "__main__.py", *words)
    node.join(120)
    said = (tmp_path / "log").read_text()
    assert node.exitcode == 0, said
    assert said.count("epoch 1/1") == 1
    assert said.count('"top1"') == 1
    weights = torch.load(tmp_path / "out/imagenet_trained_model.pth", weights_only=True)
    assert not any(key.startswith("module.") for key in weights)


@pytest.mark.slow
def test_a_mistake_of_all_ranks_is_printed_once() -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words = ["-m", "train", "--data", "here", "--recipe", "nothing"]
    ended = subprocess.run([*torchrun, *words], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1  # torchrun's own, whatever its ranks end with
    lines = [line for line in ended.stderr.splitlines() if "unknown recipe 'nothing'" in line]
    of_the_rank, of_torchrun = lines
    assert of_the_rank.startswith("python -m train: ")
    assert of_torchrun == f"  traceback : {of_the_rank}"


def test_a_mistake_of_one_rank_alone_is_printed_late(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    for rank, waited in (("0", []), ("1", [HOLD_S])):
        monkeypatch.setenv("LOCAL_RANK", rank)
        waits.clear()
        assert main(["--data", "here", "--recipe", "nothing"]) == 2
        assert "unknown recipe 'nothing'" in capsys.readouterr().err
        assert waits == waited
