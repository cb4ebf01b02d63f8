"""The optimizer, the learning rate of every step, and the precision."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from shards.errors import UsageError
from train.config import Config
from train.optim import choose_dtype, make_optimizer, make_schedule, scale_gradients, steps_per_epoch

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


@pytest.mark.parametrize(
    ("micro_batches", "accumulate", "steps"), [(8, 4, 2), (9, 4, 3), (3, 4, 1), (4, 1, 4), (7, 2, 4)]
)
def test_the_tail_of_an_epoch_is_a_step(micro_batches: int, accumulate: int, steps: int) -> None:
    assert steps_per_epoch(micro_batches, accumulate) == steps


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
    assert choose_dtype("auto", GPU) == torch.float16
    assert choose_dtype("auto", CPU) == torch.float32
    assert choose_dtype("bfloat16", CPU) == torch.bfloat16


def test_float16_is_refused_where_the_device_turns_out_to_be_a_cpu() -> None:
    with pytest.raises(UsageError, match="needs a GPU"):
        choose_dtype("float16", CPU)


def test_scaling_gradients_leaves_out_weights_without_any() -> None:
    used, unused = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    used.sum().backward()  # type: ignore[no-untyped-call]
    scale_gradients([used, unused], 4.0)
    assert used.grad is not None
    assert used.grad.tolist() == [4.0, 4.0]
    assert unused.grad is None
