"""The optimizer, the learning rate of every step, and the precision."""

import copy
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from shards.common.errors import MissingDependency, UsageError
from tests.helpers.training import write_dataset
from train.__main__ import main
from train.config import Config
from train.optim.optimizer import (
    allow_tf32,
    choose_dtype,
    make_average,
    make_optimizer,
    make_schedule,
    scale_gradients,
    update_average,
)
from train.options import Distributed, Update

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


def learning_rates(config: Config, total_steps: int) -> list[float]:
    optimizer = make_optimizer(nn.Linear(1, 1), config)
    schedule = make_schedule(optimizer, config, total_steps)
    rates = []
    for step in range(1, total_steps + 1):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        if step < total_steps:
            schedule.step()
    return rates


def test_the_learning_rate_rises_for_three_tenths_and_ends_at_the_least() -> None:
    rates = learning_rates(Config(Path(), max_lr=0.01), total_steps=100)
    assert rates[0] == pytest.approx(1e-3)
    assert max(rates) == rates[29] == pytest.approx(0.01)
    assert rates[-1] == pytest.approx(1e-5)


@settings(max_examples=60, deadline=None)
@given(total_steps=st.integers(2, 40), pct_start=st.sampled_from([0.0, 0.05, 0.1, 0.25, 0.3, 0.5, 0.9]))
def test_the_learning_rate_ends_at_the_least_for_every_length(total_steps: int, pct_start: float) -> None:
    config = Config(Path(), pct_start=pct_start)
    rates = learning_rates(config, total_steps)
    assert rates[-1] == min(rates) == pytest.approx(config.max_lr / config.div_factor / config.final_div_factor)


def test_adamw_has_the_recipe_s_values() -> None:
    optimizer = make_optimizer(nn.Linear(1, 1), Config(Path()))
    assert isinstance(optimizer, torch.optim.AdamW)
    assert optimizer.defaults["lr"] == pytest.approx(1e-3)
    assert optimizer.defaults["weight_decay"] == 1e-2


def test_automatic_precision_follows_the_device() -> None:
    assert choose_dtype(Config(Path()), GPU) == torch.float16
    assert choose_dtype(Config(Path()), CPU) == torch.float32
    assert choose_dtype(Config(Path(), precision="bfloat16"), CPU) == torch.bfloat16


@pytest.mark.parametrize("precision", ["float16", "tf32"])
def test_what_only_gpus_compute_in_is_refused_where_the_device_turns_out_to_be_a_cpu(precision: Any) -> None:
    with pytest.raises(UsageError, match="needs a GPU"):
        choose_dtype(Config(Path(), precision=precision), CPU)


def test_divided_weights_are_trained_in_bfloat16_by_default() -> None:
    assert choose_dtype(Config(Path(), distributed=Distributed(parallel="fsdp")), GPU) == torch.bfloat16


def test_scaling_gradients_leaves_out_weights_without_any() -> None:
    used, unused = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    used.sum().backward()  # type: ignore[no-untyped-call]
    scale_gradients([used, unused], 4.0)
    assert used.grad is not None
    assert used.grad.tolist() == [4.0, 4.0]
    assert unused.grad is None


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.linear = nn.Linear(4, 2)


@pytest.mark.parametrize("optimizer", ["lamb", "muon"])
def test_timms_optimizers_lower_the_loss_and_go_on_from_their_state(optimizer: Any) -> None:
    pytest.importorskip("timm")
    config = Config(Path(), max_lr=0.05, div_factor=1.0, update=Update(optimizer=optimizer))
    images, labels = torch.randn(16, 8, generator=torch.Generator().manual_seed(0)), torch.arange(16) % 8

    def steps(network: nn.Module, moved: torch.optim.Optimizer, count: int) -> list[float]:
        losses = []
        for _ in range(count):
            loss = nn.functional.cross_entropy(network(images), labels)
            moved.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            moved.step()
            losses.append(loss.item())
        return losses

    torch.manual_seed(0)
    network, again = nn.Linear(8, 8), nn.Linear(8, 8)
    first = make_optimizer(network, config)
    losses = steps(network, first, 5)
    assert losses[-1] < losses[0]
    again.load_state_dict(network.state_dict())
    second = make_optimizer(again, config)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert steps(again, second, 3) == steps(network, first, 3)


def test_an_optimizer_of_timm_needs_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingDependency, match="--optimizer lamb is timm's, which is not installed"):
        make_optimizer(nn.Linear(2, 2), Config(Path(), update=Update(optimizer="lamb")))


def test_the_command_refuses_it_before_torch_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    data = write_dataset(tmp_path / "data", {"train": 2, "validation": 1})
    assert main(["--data", str(data), "--out", str(tmp_path / "out"), "--size", "16", "--optimizer", "lamb"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert (
        printed.err
        == "python -m train: --optimizer lamb is timm's, which is not installed: pip install 'shardfeed[timm]'\n"
    )


def test_the_cosine_schedule_rises_in_a_line_and_falls_as_half_a_cosine() -> None:
    config = Config(Path(), pct_start=0.2, update=Update(optimizer="sgd", schedule="cosine"))
    rates = learning_rates(config, 101)
    first, peak, last = rates[0], config.max_lr, config.max_lr / config.div_factor / config.final_div_factor
    top = 0.2 * 101
    for step, rate in enumerate(rates):
        if step <= top:
            expected = first + (peak - first) * step / top
        else:
            expected = last + (peak - last) * (1 + math.cos(math.pi * (step - top) / (100 - top))) / 2
        assert rate == pytest.approx(expected)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_norms_and_biases_do_not_decay_where_only_kernels_do(optimizer: Any) -> None:
    network = Layers()
    config = Config(Path(), weight_decay=0.1, update=Update(optimizer=optimizer, decay="kernels"))
    decays = {id(p): g["weight_decay"] for g in make_optimizer(network, config).param_groups for p in g["params"]}
    found = {name: decays[id(parameter)] for name, parameter in network.named_parameters()}
    assert {name for name, decay in found.items() if decay == 0.1} == {"convolution.weight", "linear.weight"}
    assert {name for name, decay in found.items() if decay == 0.0} == {
        "convolution.bias", "norm.weight", "norm.bias", "linear.bias",
    }  # fmt: skip


def test_sgd_is_nesterov_s_and_its_first_step_is_that_of_plain_sgd() -> None:
    ours, plain = nn.Linear(3, 2), nn.Linear(3, 2)
    plain.load_state_dict(ours.state_dict())
    config = Config(Path(), max_lr=0.1, div_factor=1.0, weight_decay=0.01, update=Update(optimizer="sgd"))
    optimizers = (
        make_optimizer(ours, config),
        torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01, foreach=False),
    )
    for _ in range(3):
        for network, optimizer in zip((ours, plain), optimizers, strict=True):
            optimizer.zero_grad()
            network(torch.ones(1, 3)).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(ours.weight, plain.weight)


@settings(max_examples=60, deadline=None)
@given(total_steps=st.integers(1, 40), pct_start=st.sampled_from([0.0, 0.05, 0.125, 0.5, 1.0]))
def test_the_linear_schedule_stays_inside_its_bounds_and_ends_at_the_least(total_steps: int, pct_start: float) -> None:
    config = Config(Path(), pct_start=pct_start, update=Update(optimizer="sgd", schedule="linear"))
    rates = learning_rates(config, total_steps)
    least = config.max_lr / config.div_factor / config.final_div_factor
    assert all(least * 0.999 <= rate <= config.max_lr * 1.001 for rate in rates)
    if total_steps > 1 and pct_start < 1:
        assert rates[-1] == pytest.approx(least)


def rounded() -> list[bool]:
    """Whether products of matrices, and convolutions, are rounded to TF32; torch raises if its two settings differ."""
    return [torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32]


def test_the_average_begins_with_the_first_step_and_moves_by_what_is_new() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average = make_average(network, 0.75)
    assert average is not None
    with torch.no_grad():
        for step, value in enumerate((4.0, 100.0, 8.0), start=1):
            for each in (*network.parameters(), *network.buffers()):
                each.fill_(value)
            update_average(average, network, step, every=3)
    *means, batches = (each.flatten()[0].item() for each in (*average.module.parameters(), *average.module.buffers()))
    assert set(means) == {0.75 * 4 + 0.25 * 8}
    assert batches == 8  # batch norm's count of batches


def test_the_average_warms_up() -> None:
    network = nn.Linear(1, 1, bias=False)
    average = make_average(network, 0.9)
    assert average is not None
    expected = 0.0
    for step in range(1, 200):
        network.weight.data.fill_(float(step))
        update_average(average, network, step, every=1, warm_up=True)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = step if step == 1 else decay * expected + (1 - decay) * step
        assert next(average.module.parameters()).item() == pytest.approx(expected, rel=1e-5)


def test_the_average_is_updated_without_a_look_at_a_counter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading one makes the host wait for the GPU."""
    network = nn.Linear(2, 2)
    average = make_average(network, 0.9)

    def read(*_: object) -> Any:
        raise AssertionError("a tensor was read")

    for name in ("__bool__", "item", "tolist", "__int__", "__float__", "cpu", "to"):
        monkeypatch.setattr(torch.Tensor, name, read)
    for step in (1, 2):
        update_average(average, network, step, every=1)


@pytest.mark.usefixtures("tf32_as_before")
def test_tf32_is_allowed_for_matrices_and_convolutions_alike() -> None:
    for allow in (True, False):
        allow_tf32(allow)
        assert rounded() == [allow] * 2
