"""What turns gradients into weights: the optimizer, the learning rate of each step, and the precision.

A *step* is an optimizer step: `accumulate` micro-batches, or what is left of them at the end of an epoch.
"""

import math

import torch
from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import OneCycleLR

from shards.errors import UsageError
from train.config import Config, Precision


def steps_per_epoch(micro_batches: int, accumulate: int) -> int:
    """Optimizer steps of an epoch: the incomplete group of micro-batches at its end is a step of its own."""
    return math.ceil(micro_batches / accumulate)


def make_optimizer(model: nn.Module, config: Config) -> Optimizer:
    """AdamW (Loshchilov and Hutter, arXiv:1711.05101) over all weights, at the schedule's first learning rate.

    Fused: one pass over the weights, and on a GPU the scaler's search for overflows costs no transfer to the host.
    """
    return AdamW(model.parameters(), lr=config.max_lr / config.div_factor, weight_decay=config.weight_decay, fused=True)


def make_schedule(optimizer: Optimizer, config: Config, total_steps: int) -> OneCycleLR:
    """One cycle (Smith and Topin, arXiv:1708.07120): cosine up to max_lr, then down to the least at the last step.

    It also moves AdamW's first beta between 0.95 and 0.85 against the learning rate, as PyTorch does by default.
    Step it *between* optimizer steps, total_steps - 1 times in all.
    """
    pct_start = config.pct_start
    if pct_start * total_steps == 1:  # a rise of exactly one step has length 0, by which PyTorch divides
        pct_start += 1e-9
    return OneCycleLR(
        optimizer,
        max_lr=config.max_lr,
        total_steps=total_steps,
        pct_start=pct_start,
        div_factor=config.div_factor,
        final_div_factor=config.final_div_factor,
    )


def choose_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """The type that autocast computes in on `device`.

    Raises UsageError for float16 on a CPU: its small gradients vanish there, and nothing gets faster.
    """
    if precision == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    if precision == "float16" and device.type == "cpu":
        raise UsageError("--precision float16 needs a GPU: take bfloat16 or float32 on a CPU")
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]


def scale_gradients(parameters: list[nn.Parameter], factor: float) -> None:
    """Multiplies all gradients by `factor`, in place."""
    torch._foreach_mul_([parameter.grad for parameter in parameters if parameter.grad is not None], factor)
