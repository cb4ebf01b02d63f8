"""A training run: what is decided before it, the network with all that moves its weights, and how far it has come."""

import math
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributed.algorithms.model_averaging.averagers import PeriodicModelAverager
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from model import build_model
from shards.common.errors import UsageError
from train.config import Config
from train.optim.batch_split import BatchSplit, split_batch
from train.optim.gpu_memory import choose_micro_batch
from train.optim.optimizer import MovingAverage, allow_tf32, choose_dtype, make_average, make_optimizer, make_schedule
from train.ranks.distributed import OnEveryRank, World, max_over_ranks, sum_over_ranks
from train.ranks.parallel import local_part, make_local_sgd, parallelize, settle
from train.report.clock import Clock


@dataclass(frozen=True)
class Setup:
    """What is decided once, before the first step: the options, this rank, the precision and the batch split."""

    config: Config
    world: World
    dtype: torch.dtype
    """What autocast computes in."""
    batch: BatchSplit


@dataclass
class Learner:
    """A network and all that moves its weights.

    network: the bare network. parallel: the same network as several ranks train it, wrapped for DDP or FSDP.
    average: the moving average of the weights, with --ema.
    local_sgd: averages the weights over the ranks from time to time, with --parallel local-sgd.
    skipped: how many steps changed nothing because a gradient was not finite, counted on the device.
    """

    network: nn.Module
    parallel: nn.Module
    average: MovingAverage | None
    local_sgd: PeriodicModelAverager | None
    optimizer: Optimizer
    schedule: LRScheduler
    scaler: torch.amp.GradScaler
    skipped: Tensor

    @property
    def evaluated(self) -> nn.Module:
        """The network to evaluate and save: the average where there is one."""
        return self.network if self.average is None else self.average.module

    def settle(self, world: World) -> None:
        """Makes weights and statistics the same on all ranks, before they are evaluated."""
        networks = [self.network] if self.average is None else [self.network, self.average.module]
        settle(networks, self.local_sgd, world)


@dataclass
class Losses:
    """The losses of the optimizer steps, on their way from the device to the log.

    on_device: those of the steps since the last reading, each summed over this rank's images.
    unlogged: those read since the last line of the log, each summed over all ranks' images.
    of_epoch: the sum of those logged in this epoch.
    bad_in_a_row: how many of the latest were not finite.
    """

    on_device: list[Tensor] = field(default_factory=list)
    unlogged: list[float] = field(default_factory=list)
    of_epoch: float = 0.0
    bad_in_a_row: int = 0


@dataclass
class Run:
    """What changes while training.

    step: optimizer steps taken, of total_steps. epoch: the one being trained, from 1; 0 before the first.
    best: the best top-1 so far, in percent. saved: the newest checkpoint.
    """

    setup: Setup
    learner: Learner
    total_steps: int
    clock: Clock = field(default_factory=Clock)
    losses: Losses = field(default_factory=Losses)
    step: int = 0
    epoch: int = 0
    best: float | None = None
    saved: Path | None = None

    def enter(self, epoch: int) -> None:
        """Begins an epoch."""
        self.epoch, self.losses.of_epoch, self.losses.unlogged = epoch, 0.0, []
        self.clock.enter_epoch()


def set_up(config: Config, num_classes: int, world: World) -> tuple[nn.Module, Setup]:
    """The network that `config` names, and everything that is decided once.

    Raises UsageError for options that do not fit this machine or the number of ranks.
    """
    allow_tf32(config.precision == "tf32")
    dtype = choose_dtype(config, world.device)
    network = make_network(config, num_classes, world)
    largest = choose_micro_batch(network, config, world, dtype)
    return network, Setup(config, world, dtype, split_batch(config.batch, largest, world.size))


def make_network(config: Config, num_classes: int, world: World) -> nn.Module:
    """The network that `config` names, on this rank's device, channels-last; the same weights on every rank.

    Afterwards the global random generators, which dropout draws from, differ from rank to rank.
    """
    torch.manual_seed(config.seed)
    network = build_model(
        config.model,
        num_classes,
        blur_pool=config.blur_pool,
        drop_path=config.drop_path,
        checkpoint=config.memory.recompute,
    )
    torch.manual_seed(config.seed + world.rank)
    return network.to(device=world.device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def steps_of_epoch(setup: Setup, micro_batches: int) -> int:
    """Optimizer steps of an epoch of `micro_batches` on this rank. Raises UsageError if there is none."""
    config, world = setup.config, setup.world
    steps = setup.batch.steps(micro_batches, config.update.drop_last)
    if not steps:
        raise UsageError(
            f"an epoch has {micro_batches * setup.batch.micro_batch * world.size} images in whole micro-batches, and "
            f"an optimizer step needs {config.batch}: choose a smaller --batch-size, or --no-drop-last"
        )
    return steps


def begin(network: nn.Module, setup: Setup, micro_batches: int, began: float | None = None) -> Run:
    """A run before its first step, whose epochs have `micro_batches` on this rank. `began`: see `Clock`.

    Raises UsageError if an epoch has no step.
    """
    config, world = setup.config, setup.world
    total_steps = config.epochs * steps_of_epoch(setup, micro_batches)
    torch.backends.cudnn.benchmark = True  # batches have few different shapes: let cuDNN try its algorithms for each
    average = make_average(network, config.update.ema)
    if config.memory.compile:
        network.compile()
    parallel = parallelize(network, config, world, accumulates=setup.batch.accumulate > 1, dtype=setup.dtype)
    optimizer = make_optimizer(network, config)
    learner = Learner(
        network=network,
        parallel=parallel,
        average=average,
        local_sgd=make_local_sgd(config.distributed, world),
        optimizer=optimizer,
        schedule=make_schedule(optimizer, config, total_steps),
        scaler=torch.amp.GradScaler(world.device.type, enabled=setup.dtype == torch.float16),
        skipped=torch.zeros((), device=world.device),
    )
    return Run(setup, learner, total_steps, Clock(began=began))


def read_losses(run: Run) -> None:
    """Moves the latest steps' losses, summed over the ranks, from the device to `run.losses.unlogged`.

    Raises ShardfeedError when as many in a row are not finite as --bad-losses says.
    """
    losses = run.losses
    if not losses.on_device:
        return
    sums = sum_over_ranks(torch.stack(losses.on_device), run.setup.world).tolist()
    for step, loss in enumerate(sums, start=run.step - len(sums) + 1):
        losses.bad_in_a_row = 0 if math.isfinite(loss) else losses.bad_in_a_row + 1
        if losses.bad_in_a_row >= run.setup.config.update.bad_losses:
            since = f", as in {losses.bad_in_a_row - 1} steps before" if losses.bad_in_a_row > 1 else ""
            raise OnEveryRank(
                f"the loss is {loss} at optimizer step {step}, in epoch {run.epoch}{since}: {_diverged(run)}"
            )
    losses.on_device = []
    losses.unlogged += sums


def refuse_broken(run: Run) -> None:
    """Raises ShardfeedError if a weight or a statistic is not finite. To be called by all ranks."""
    network = run.learner.network
    numbers = [*network.parameters(), *(each for each in network.buffers() if each.is_floating_point())]
    broken = ~torch.stack([torch.isfinite(local_part(each)).all() for each in numbers]).all()
    if max_over_ranks(broken.float().cpu(), run.setup.world):
        raise OnEveryRank(
            f"weights are not finite after optimizer step {run.step}, in epoch {run.epoch}: {_diverged(run)}"
        )


def _diverged(run: Run) -> str:
    """The end of a message about a divergence: what to do, and what was saved before it."""
    saved = f"; the last good checkpoint is {run.saved}" if run.saved else ""
    return f"training has diverged; lower --max-lr, or take --precision bfloat16 or float32{saved}"
