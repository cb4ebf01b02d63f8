"""The state of a training run: the network, what moves its weights, and how far it has come."""

from dataclasses import dataclass, field

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from model import build_model
from shards.errors import UsageError
from train.config import Config
from train.distributed import World, spread
from train.metrics import Clock, Reading
from train.optim import make_optimizer, make_schedule, steps_per_epoch


@dataclass
class Run:
    """What changes while training. `network` is the bare model; `model` is the same, spread over the ranks."""

    network: nn.Module
    model: nn.Module
    optimizer: Optimizer
    schedule: LRScheduler
    scaler: torch.amp.GradScaler
    dtype: torch.dtype
    total_steps: int
    step: int = 0
    clock: Clock = field(default_factory=Clock)
    warm: Reading | None = None


def make_network(config: Config, num_classes: int, world: World) -> nn.Module:
    """The network that `config` names, on this rank's device, channels-last; the same weights on every rank.

    Afterwards the global random generators, which dropout draws from, differ from rank to rank.
    """
    torch.manual_seed(config.seed)
    try:
        network = build_model(config.model, num_classes)
    except ValueError as error:
        raise UsageError(f"--model: {error}") from None
    torch.manual_seed(config.seed + world.rank)
    return network.to(device=world.device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def begin(network: nn.Module, config: Config, world: World, dtype: torch.dtype, micro_batches: int) -> Run:
    """A run before its first step, of epochs of `micro_batches` on this rank."""
    torch.backends.cudnn.benchmark = True  # every batch has the same shape: let cuDNN try its algorithms once
    total_steps = config.epochs * steps_per_epoch(micro_batches, config.accumulate)
    optimizer = make_optimizer(network, config)
    return Run(
        network=network,
        model=spread(network, world),
        optimizer=optimizer,
        schedule=make_schedule(optimizer, config, total_steps),
        scaler=torch.amp.GradScaler(world.device.type, enabled=dtype == torch.float16),
        dtype=dtype,
        total_steps=total_steps,
    )
