"""How gradients become weights: the optimizer, each step's learning rate, the moving average, and the precision.

A *step* is an optimizer step: `batch` images, or what is left of them at the end of an epoch.
"""

import importlib
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR
from torch.optim.swa_utils import AveragedModel

from model.networks import in_head
from shards.common.errors import UsageError
from train.config import Config
from train.options import require_optimizer


def make_optimizer(model: nn.Module, config: Config) -> Optimizer:
    """The optimizer that `config` names, at the schedule's first rate.

    AdamW (Loshchilov and Hutter, arXiv:1711.05101) and SGD with Nesterov momentum are torch's; LAMB (You et al.,
    arXiv:1904.00962) and Muon (Jordan, 2024) timm's. With `decay="kernels"` weights of fewer than two dimensions (norms
    and biases) do not decay. Frozen weights are in no group.

    torch's are fused: one pass over the weights, and on a GPU the check for overflow needs no transfer to the host.

    Raises MissingDependency where timm is needed and not installed.
    """
    update, lr = config.update, config.max_lr / config.div_factor
    parameters = [each for each in model.parameters() if each.requires_grad]
    groups = [group for part in _parts(model, config) for group in _decayed(*part, config)]
    if update.optimizer in ("lamb", "muon"):
        return _of_timm(update.optimizer, groups, lr, config.weight_decay)
    # The fused kernels do not accept weights that FSDP has divided over the ranks.
    fused = not any(isinstance(each, DTensor) for each in parameters)
    if update.optimizer == "adamw":
        return AdamW(groups, lr=lr, weight_decay=config.weight_decay, fused=fused)
    optimizer = SGD(groups, lr=lr, momentum=update.momentum, nesterov=update.momentum > 0, fused=fused)
    # If the scaler skips the very first step, the fused kernel leaves the momentum uninitialised. Starting from zeros
    # gives the same first step.
    if update.momentum:
        for each in parameters:
            optimizer.state[each]["momentum_buffer"] = torch.zeros_like(each)
    return optimizer


def _parts(model: nn.Module, config: Config) -> list[tuple[list[nn.Parameter], float]]:
    """The trained weights, with the learning rate at which they begin; first those whose peak is --max-lr."""
    trained = [(name, each) for name, each in model.named_parameters() if each.requires_grad]
    lr, scale = config.max_lr / config.div_factor, config.start.backbone_lr_scale
    if scale == 1:
        return [([each for _, each in trained], lr)]
    of_head = in_head(model)
    return [
        ([each for name, each in trained if of_head(name)], lr),
        ([each for name, each in trained if not of_head(name)], scale * lr),
    ]


def _decayed(parameters: list[nn.Parameter], lr: float, config: Config) -> list[dict[str, Any]]:
    """The groups of weights that begin at one learning rate: one, or two where only kernels decay."""
    if config.update.decay == "all":
        return [{"params": parameters, "weight_decay": config.weight_decay, "lr": lr}]
    kernels, others = ([each for each in parameters if (each.ndim >= 2) == wide] for wide in (True, False))
    return [
        {"params": kernels, "weight_decay": config.weight_decay, "lr": lr},
        {"params": others, "weight_decay": 0.0, "lr": lr},
    ]


def _of_timm(name: str, groups: list[dict[str, Any]], lr: float, weight_decay: float) -> Optimizer:
    require_optimizer(name)
    timm_optim = importlib.import_module("timm.optim")
    optimizer: Optimizer = timm_optim.create_optimizer_v2(groups, opt=name, lr=lr, weight_decay=weight_decay)
    return optimizer


def make_schedule(optimizer: Optimizer, config: Config, total_steps: int) -> LRScheduler:
    """The learning rate of each step: it rises to max_lr, then falls to its least value at the last step.

    onecycle: both parts are half a cosine (Smith and Topin, arXiv:1708.07120), and AdamW's first beta moves between
    0.95 and 0.85 against the learning rate, as PyTorch does by default. linear: both parts are straight lines.
    cosine: a straight line up and half a cosine down.
    Step the schedule *between* optimizer steps, total_steps - 1 times in all.
    """
    if config.update.schedule != "onecycle":
        return LambdaLR(optimizer, _Ramp(config, total_steps))
    pct_start = config.pct_start
    if pct_start * total_steps == 1:  # for a rise of exactly one step PyTorch divides by 0
        pct_start += 1e-9
    return OneCycleLR(
        optimizer,
        max_lr=[config.max_lr * (group["lr"] / optimizer.param_groups[0]["lr"]) for group in optimizer.param_groups],
        total_steps=total_steps,
        pct_start=pct_start,
        div_factor=config.div_factor,
        final_div_factor=config.final_div_factor,
        cycle_momentum=isinstance(optimizer, AdamW),
    )


class _Ramp:
    """The learning rate of a step, counted from 0, as a multiple of the first step's."""

    def __init__(self, config: Config, total_steps: int) -> None:
        self._last = max(1, total_steps - 1)
        # In a run of a few steps the peak comes early enough for the last one to have the least rate.
        latest = self._last if config.pct_start == 1 else self._last - 1
        self._peak = min(latest, config.pct_start * total_steps)
        self._high, self._end = config.div_factor, 1 / config.final_div_factor
        self._cosine = config.update.schedule == "cosine"

    def __call__(self, step: int) -> float:
        if step < self._peak:
            return 1 + (self._high - 1) * step / self._peak
        fallen = min(1.0, (step - self._peak) / max(1e-9, self._last - self._peak))
        if self._cosine:
            fallen = (1 - math.cos(math.pi * fallen)) / 2
        return self._high + (self._end - self._high) * fallen


class MovingAverage(AveragedModel):
    """torch's average, updated without a look at its counter, which would make the host wait for the GPU each time."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__(network, use_buffers=True)
        self._decay = decay

    @torch.no_grad()
    def update_parameters(self, network: nn.Module, *, step: int | None = None, first: bool = False) -> None:
        """Copies the network's values if this is the `first` update, otherwise mixes them in.

        step: in a warm-up, the optimizer step, from which the decay follows as in TensorFlow's averages.
        """
        decay = self._decay if step is None else min(self._decay, (1 + step) / (10 + step))
        ours, theirs = ([*each.parameters(), *each.buffers()] for each in (self.module, network))
        mixed = [(own, other) for own, other in zip(ours, theirs, strict=True) if own.is_floating_point() and not first]
        if mixed:
            torch._foreach_lerp_([own for own, _ in mixed], [other for _, other in mixed], 1 - decay)
        for own, other in zip(ours, theirs, strict=True):
            if first or not own.is_floating_point():  # batch norm's count of batches is no average
                own.copy_(other)
        self.n_averaged += 1


def make_average(network: nn.Module, decay: float) -> MovingAverage | None:
    """The moving average (EMA) of the weights, and of batch norm's statistics; None for a decay of 0.

    It is evaluated and saved in place of the network, because it is less noisy.
    """
    return MovingAverage(network, decay) if decay else None


def update_average(
    average: MovingAverage | None, network: nn.Module, step: int, every: int, warm_up: bool = False
) -> None:
    """After optimizer step `step`, counted from 1: copies the first step's weights, then mixes in every n-th step's."""
    if average is not None and (step == 1 or step % every == 0):
        average.update_parameters(network, step=step if warm_up else None, first=step == 1)


def choose_dtype(config: Config, device: torch.device) -> torch.dtype:
    """The type that autocast computes in on `device`.

    On a CPU it raises UsageError for float16, which loses small gradients there and is no faster, and for tf32, which
    only GPUs have.
    """
    if config.precision == "auto":
        if device.type == "cpu":
            return torch.float32
        return torch.bfloat16 if config.distributed.parallel == "fsdp" else torch.float16
    if config.precision in ("float16", "tf32") and device.type == "cpu":
        raise UsageError(f"--precision {config.precision} needs a GPU: take bfloat16 or float32 on a CPU")
    kinds = {"bfloat16": torch.bfloat16, "float16": torch.float16}
    return kinds.get(config.precision, torch.float32)


def allow_tf32(allow: bool) -> None:
    """Whether GPUs may round products of float32 numbers to TF32; PyTorch by itself does so in convolutions."""
    # These settings and not the newer `fp32_precision`: once that is set, torch 2.14 raises wherever these are read,
    # as torch.compile and torch.export do.
    torch.backends.cuda.matmul.allow_tf32 = allow
    torch.backends.cudnn.allow_tf32 = allow


def scale_gradients(parameters: list[nn.Parameter], factor: float) -> None:
    """Multiplies all gradients by `factor`, in place."""
    torch._foreach_mul_([parameter.grad for parameter in parameters if parameter.grad is not None], factor)


def skip_if(bad: Tensor, optimizer: Optimizer) -> None:
    """Lets the next step of a fused optimizer change nothing if `bad` is true, without reading it to the host.

    The gradient scaler tells a fused optimizer of an overflow in the same way.
    """
    optimizer.found_inf = bad.float()  # type: ignore[attr-defined]
