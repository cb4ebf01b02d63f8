"""One optimizer step: clipping, gradients that are not finite, precision and memory format."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.helpers.training import SILENT, FixedBatches, read_lines, setup_of, tiny_network
from train.config import Config
from train.engine import train_epoch
from train.options import Update
from train.report.metrics import Recorder
from train.run import begin

SMALL = Config(Path("unused"), batch=8, micro_batch=4, epochs=2, device="cpu", log_every=3)


def test_gradients_are_clipped_to_the_norm() -> None:
    config = dataclasses.replace(SMALL, clip=1e-3, epochs=1, batch=4)
    norms: list[float] = []
    network = tiny_network()
    run = begin(network, setup_of(config), 2)

    def spy(optimizer: torch.optim.Optimizer, args: object, kwargs: object) -> None:
        norms.append(float(torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]).norm()))

    run.learner.optimizer.register_step_pre_hook(spy)
    train_epoch(run, FixedBatches([4, 4], side=8), SILENT, 1)
    assert norms == pytest.approx([1e-3, 1e-3], rel=1e-3)


def not_fused(network: nn.Module, config: Config) -> torch.optim.Optimizer:
    """As for weights that are divided over ranks."""
    return torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=0.1, fused=False)


@pytest.mark.filterwarnings("error:Detected call of `lr_scheduler.step")
@pytest.mark.parametrize(("optimizer", "fused"), [("adamw", True), ("sgd", True), ("sgd", False)])
def test_a_step_without_finite_gradients_changes_no_weight_and_is_counted(
    optimizer: Any, fused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not fused:
        monkeypatch.setattr("train.run.make_optimizer", not_fused)
    batches, config = FixedBatches([4] * 3, side=8), dataclasses.replace(SMALL, batch=4, epochs=1, log_every=1)
    config = dataclasses.replace(config, update=Update(optimizer=optimizer))
    batches.batches[0][0][0, 0, 0, 0] = float("nan")
    network = tiny_network()
    weight = list(network.parameters())[-2]
    before, seen = weight.detach().clone(), []
    run = begin(network, setup_of(config), len(batches))
    with Recorder(tmp_path, {}) as recorder:
        train_epoch(run, batches, recorder, 1, lambda: seen.append(weight.detach().clone()))
    assert torch.equal(seen[0], before)
    assert not torch.equal(seen[1], before)
    assert torch.isfinite(weight).all()
    assert [line["skipped_steps"] for line in read_lines(tmp_path / "metrics.jsonl")] == [1, 1, 1]


def test_bfloat16_computes_in_bfloat16_and_keeps_float32_weights() -> None:
    seen: list[torch.dtype] = []
    network = tiny_network()
    network[-1].register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    run = begin(network, setup_of(SMALL, dtype=torch.bfloat16), 2)
    train_epoch(run, FixedBatches([4, 4], side=8), SILENT, 1)
    assert set(seen) == {torch.bfloat16}
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


def test_the_network_sees_channels_last_images() -> None:
    seen: list[bool] = []
    network = tiny_network()
    network.register_forward_pre_hook(
        lambda module, args: seen.append(args[0].is_contiguous(memory_format=torch.channels_last))
    )
    run = begin(network, setup_of(SMALL), 2)
    train_epoch(run, FixedBatches([4, 4], side=8), SILENT, 1)
    assert seen == [True, True]
