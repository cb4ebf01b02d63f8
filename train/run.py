"""The state of a training run: the network, what moves its weights, and how far it has come."""

import math
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributed.algorithms.model_averaging.averagers import PeriodicModelAverager
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel

from model import build_model
from shards.common.errors import ShardfeedError
from train.config import Config
from train.optim.averaging import make_average
from train.optim.batch_split import portions, steps_per_epoch
from train.optim.optimizer import make_optimizer, make_schedule, round_products
from train.ranks.distributed import World, max_over_ranks, sum_over_ranks
from train.ranks.parallel import local, make_averager, settle, spread
from train.report.metrics import Clock, Reading


@dataclass
class Run:
    """What changes while training. `network` is the bare model; `model` is the same, spread over the ranks.

    average: the moving average of its weights, if there is one.
    averager: of local SGD.
    step: optimizer steps taken, of total_steps.
    skipped: how many of them changed nothing, because a gradient was not finite; on the device.
    epoch: the one being trained, from 1; 0 before the first. `entered` is what the clock showed at its beginning.
    losses: of the steps not yet read to the host, on the device, each summed over this rank's images.
    unlogged: of the steps read but not yet logged, each summed over all ranks' images.
    bad_losses: how many of the latest steps, in a row, had no finite loss.
    logged: what the clock showed at the last line of the log; `warm`: when the warm-up was over.
    loss_of_epoch: sum of this epoch's logged losses.
    best: the best top-1 so far, in percent.
    saved: the newest checkpoint.
    began: when the run began, in the time of `time.perf_counter`.
    """

    network: nn.Module
    model: nn.Module
    average: AveragedModel | None
    averager: PeriodicModelAverager | None
    optimizer: Optimizer
    schedule: LRScheduler
    scaler: torch.amp.GradScaler
    dtype: torch.dtype
    total_steps: int
    skipped: Tensor
    step: int = 0
    clock: Clock = field(default_factory=Clock)
    warm: Reading | None = None
    epoch: int = 0
    entered: Reading = field(default_factory=Reading)
    logged: Reading = field(default_factory=Reading)
    losses: list[Tensor] = field(default_factory=list)
    unlogged: list[float] = field(default_factory=list)
    bad_losses: int = 0
    loss_of_epoch: float = 0.0
    best: float | None = None
    saved: Path | None = None
    began: float = field(default_factory=time.perf_counter)

    def enter(self, epoch: int) -> None:
        """Begins an epoch."""
        self.epoch, self.loss_of_epoch, self.unlogged = epoch, 0.0, []
        self.entered = self.logged = self.clock.read()

    @property
    def result(self) -> nn.Module:
        """The network to evaluate: the average where there is one."""
        return self.network if self.average is None else self.average.module

    def settle(self, world: World) -> None:
        """Makes the weights and statistics the same on all ranks, before they are evaluated."""
        networks = [self.network] if self.average is None else [self.network, self.average.module]
        settle(networks, self.averager, world)


def make_network(config: Config, num_classes: int, world: World) -> nn.Module:
    """The network that `config` names, on this rank's device, channels-last; the same weights on every rank.

    Afterwards the global random generators, which dropout draws from, differ from rank to rank.
    """
    torch.manual_seed(config.seed)
    network = build_model(config.model, num_classes, blur_pool=config.blur_pool, checkpoint=config.memory.recompute)
    torch.manual_seed(config.seed + world.rank)
    return network.to(device=world.device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def begin(
    network: nn.Module,
    config: Config,
    world: World,
    dtype: torch.dtype,
    micro_batches: int,
    began: float | None = None,
) -> Run:
    """A run before its first step, of epochs of `micro_batches` on this rank. `began`: see `Run`; by default now."""
    torch.backends.cudnn.benchmark = True  # batches have few different shapes: let cuDNN try its algorithms for each
    round_products(config)
    steps = steps_per_epoch(micro_batches, portions(config, world).accumulate, config.update.drop_last)
    total_steps = config.epochs * steps
    average = make_average(network, config)
    if config.memory.compile:
        network.compile()
    model = spread(network, config, world)
    optimizer = make_optimizer(network, config)
    return Run(
        network=network,
        model=model,
        average=average,
        averager=make_averager(config, world),
        optimizer=optimizer,
        schedule=make_schedule(optimizer, config, total_steps),
        scaler=torch.amp.GradScaler(world.device.type, enabled=dtype == torch.float16),
        dtype=dtype,
        total_steps=total_steps,
        skipped=torch.zeros((), device=world.device),
        began=time.perf_counter() if began is None else began,
    )


def read_losses(run: Run, config: Config, world: World) -> None:
    """Moves the losses of the latest steps, summed over the ranks, from the device to `run.unlogged`.

    Raises ShardfeedError for as many in a row that are infinite or not a number as the configuration says.
    """
    if not run.losses:
        return
    sums = sum_over_ranks(torch.stack(run.losses), world).tolist()
    for position, loss in enumerate(sums, start=run.step - len(sums) + 1):
        run.bad_losses = 0 if math.isfinite(loss) else run.bad_losses + 1
        if run.bad_losses >= config.update.bad_losses:
            since = f", as in {run.bad_losses - 1} steps before" if run.bad_losses > 1 else ""
            raise ShardfeedError(
                f"the loss is {loss} at optimizer step {position}, in epoch {run.epoch}{since}: "
                f"training has diverged{_advice(run)}"
            )
    run.losses = []
    run.unlogged += sums


def refuse_broken(run: Run, world: World) -> None:
    """Raises ShardfeedError if a weight or a statistic is not finite. To be called by all ranks."""
    numbers = [*run.network.parameters(), *(each for each in run.network.buffers() if each.is_floating_point())]
    broken = ~torch.stack([torch.isfinite(local(each)).all() for each in numbers]).all()
    if max_over_ranks(broken.float().cpu(), world):
        raise ShardfeedError(
            f"weights are not finite after optimizer step {run.step}, in epoch {run.epoch}: "
            f"training has diverged{_advice(run)}"
        )


def _advice(run: Run) -> str:
    """What to do about a divergence, for the end of a message."""
    kept = f"; the last good checkpoint is {run.saved}" if run.saved else ""
    return f"; lower --max-lr, or take --precision bfloat16 or float32{kept}"
