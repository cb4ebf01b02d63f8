"""What turns gradients into weights: the optimizer, the learning rate of each step, and the precision.

A *step* is an optimizer step: the micro-batches of `batch` images, or what is left of them at the end of an epoch.
"""

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from shards.common.errors import UsageError
from train.config import Config


def make_optimizer(model: nn.Module, config: Config) -> Optimizer:
    """AdamW (Loshchilov and Hutter, arXiv:1711.05101) or SGD with Nesterov momentum, at the schedule's first rate.

    Fused: one pass over the weights, and on a GPU the search for overflows costs no transfer to the host. With
    `decay="kernels"` weights of fewer than two dimensions (norms and biases) do not decay.
    """
    update, lr = config.update, config.max_lr / config.div_factor
    parameters = list(model.parameters())
    if update.decay == "kernels":
        groups = [
            {"params": [each for each in parameters if each.ndim >= 2], "weight_decay": config.weight_decay},
            {"params": [each for each in parameters if each.ndim < 2], "weight_decay": 0.0},
        ]
    else:
        groups = [{"params": parameters, "weight_decay": config.weight_decay}]
    # The fused kernels do not know weights that are divided over ranks.
    fused = not any(isinstance(each, DTensor) for each in parameters)
    if update.optimizer == "adamw":
        return AdamW(groups, lr=lr, weight_decay=config.weight_decay, fused=fused)
    optimizer = SGD(groups, lr=lr, momentum=update.momentum, nesterov=update.momentum > 0, fused=fused)
    # If the scaler skips the very first step, the fused kernel leaves momentum that was never written; zeros give
    # the same first step.
    if update.momentum:
        for each in parameters:
            optimizer.state[each]["momentum_buffer"] = torch.zeros_like(each)
    return optimizer


def make_schedule(optimizer: Optimizer, config: Config, total_steps: int) -> LRScheduler:
    """The learning rate of each step: up to max_lr, then down to the least at the last step.

    onecycle: half a cosine each (Smith and Topin, arXiv:1708.07120); it also moves AdamW's first beta between 0.95
    and 0.85 against the learning rate, as PyTorch does by default. linear: straight lines.
    Step it *between* optimizer steps, total_steps - 1 times in all.
    """
    if config.update.schedule == "linear":
        return LambdaLR(optimizer, _Ramp(config, total_steps))
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
        cycle_momentum=isinstance(optimizer, AdamW),
    )


class _Ramp:
    """The rate of step `step`, counted from 0, as a multiple of the first one."""

    def __init__(self, config: Config, total_steps: int) -> None:
        self._last = max(1, total_steps - 1)
        # In a run of a few steps the peak comes early enough for the last one to have the least rate.
        latest = self._last if config.pct_start == 1 else self._last - 1
        self._peak = min(latest, config.pct_start * total_steps)
        self._high, self._end = config.div_factor, 1 / config.final_div_factor

    def __call__(self, step: int) -> float:
        if step < self._peak:
            return 1 + (self._high - 1) * step / self._peak
        fallen = (step - self._peak) / max(1e-9, self._last - self._peak)
        return self._high + (self._end - self._high) * min(1.0, fallen)


def choose_dtype(config: Config, device: torch.device) -> torch.dtype:
    """The type that autocast computes in on `device`.

    Raises UsageError on a CPU for float16, whose small gradients vanish there while nothing gets faster, and for
    tf32, which only GPUs have.
    """
    if config.precision == "auto":
        if device.type == "cpu":
            return torch.float32
        return torch.bfloat16 if config.sharing.parallel == "fsdp" else torch.float16
    if config.precision in ("float16", "tf32") and device.type == "cpu":
        raise UsageError(f"--precision {config.precision} needs a GPU: take bfloat16 or float32 on a CPU")
    kinds = {"bfloat16": torch.bfloat16, "float16": torch.float16}
    return kinds.get(config.precision, torch.float32)


def round_products(config: Config) -> None:
    """Lets products of float32 numbers be rounded to TF32 on GPUs, or not: PyTorch by itself rounds in convolutions."""
    # These, and not the newer `fp32_precision`: after that is set, torch 2.14 raises wherever it reads these, as
    # torch.compile and torch.export do.
    torch.backends.cuda.matmul.allow_tf32 = config.precision == "tf32"
    torch.backends.cudnn.allow_tf32 = config.precision == "tf32"


def scale_gradients(parameters: list[nn.Parameter], factor: float) -> None:
    """Multiplies all gradients by `factor`, in place."""
    torch._foreach_mul_([parameter.grad for parameter in parameters if parameter.grad is not None], factor)


def leave_out(optimizer: Optimizer, bad: Tensor) -> None:
    """Lets the next step of a fused optimizer change nothing where `bad` is true, without asking the device.

    It is how the gradient scaler tells a fused optimizer what it found.
    """
    optimizer.found_inf = bad.float()  # type: ignore[attr-defined]
