"""`python -m train --data DIR --check`: is everything ready to train? One line per check, in seconds.

Each check needs the ones before it, so the first failure ends the command. On a CPU the training steps take two images
of each micro-batch, because whole ones would take minutes there; on a GPU, whose memory they show, they take all.
"""

import contextlib
import dataclasses
import importlib.util
import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import nn
from torch._C._distributed_c10d import TCPStore  # torch.distributed has it, but not its type

import shards
from shards.common.errors import MissingDependency, ShardfeedError, UsageError
from shards.common.terminal import wrapped
from shards.common.versions import versions
from train.checkpoints.snapshot import identity
from train.commands.room import check_out
from train.config import Config
from train.data import held_out_loader, open_splits, training_loader, training_size
from train.engine import train_epoch
from train.optim.batch_split import BatchSplit, split_batch
from train.optim.optimizer import choose_dtype
from train.ranks.distributed import OnEveryRank, World, joined, sum_over_ranks, try_on_main
from train.report.environment import device_name, peak_memory
from train.report.header import hints, parameters, split_words, step_words
from train.report.metrics import Recorder
from train.run import Setup, begin, set_up, steps_of_epoch

STEPS = 2
IMAGES_ON_A_CPU = 2


def check(config: Config) -> None:
    """Prints a line for each check that passes; leaves no file.

    Raises ShardfeedError, naming the check, at the first that fails.
    """
    with joined(config.device, config.memory.offload) as world:
        with _named("imports and devices"):
            dtype = choose_dtype(config, world.device)
            _ = shards.Loader  # imports DALI
            if config.wandb and importlib.util.find_spec("wandb") is None:
                raise MissingDependency("W&B is not installed, which --wandb needs: pip install wandb")
            packages = ", ".join(f"{name} {version}" for name, version in versions().items())
            _passed(
                world, "imports and devices", f"{packages}; {device_name(world)}, {str(dtype).removeprefix('torch.')}"
            )

        with _named("data set opens"):
            from shards.feed.runner import open_shards  # brings DALI: whether that loads was the check before

            split, held_out = open_splits(config)
            for each in filter(None, (split, held_out)):
                open_shards(each).close()  # compares their lengths too
            _passed(world, "data set opens", split_words(split, held_out))

        with _named("model and batch"):
            network, setup = set_up(config, split, world)
            config = setup.config
            detail = f"{config.model} of {parameters(network):,} parameters; {step_words(setup)} a step"
            _passed(world, "model and batch", detail)

        with _named("ranks"):
            _passed(world, "ranks", _try_ranks(setup))

        with _named("--out"):
            own = identity(config, split, setup.dtype)
            out = try_on_main(lambda: check_out(config, network, own, world.size), (ShardfeedError, OSError), world)
            _passed(world, "--out", out)

        with (
            _named("batch shape"),
            training_loader(split, setup) as loader,
            contextlib.nullcontext() if held_out is None else held_out_loader(held_out, setup) as validation,
        ):
            steps_of_epoch(setup, len(loader))
            tried = _to_try(setup)
            batches = list(itertools.islice(loader, STEPS * tried.accumulate))
            images = batches[0][0]
            size = training_size(config, epoch=1)
            shape, expected = tuple(images.shape), (setup.batch.micro_batch, 3, size, size)
            if shape != expected:
                raise ShardfeedError(f"a batch has shape {shape} instead of {expected}")
            seen = "" if validation is None else f"; in validation {tuple(next(iter(validation))[0].shape)}"
            _passed(world, "batch shape", f"{shape}, {images.dtype} on {images.device}{seen}")

        with _named("training steps"), Recorder(None, {}) as recorder:
            batches = [(images[: tried.micro_batch], labels[: tried.micro_batch]) for images, labels in batches]
            run = begin(network, _strict(setup, tried), micro_batches=len(batches))
            loss = train_epoch(run, batches, recorder, epoch=1)
            _passed(world, "training steps", f"{run.step} of {tried.images} images on each rank, loss {loss:.3f}")

        if config.memory.compile:
            with _named("compiler"):  # a small module: the network itself would take minutes
                small = nn.Conv2d(3, 4, 3).to(world.device)
                small.compile()
                small(torch.zeros(1, 3, 8, 8, device=world.device))
                _passed(world, "compiler", "torch.compile has compiled a convolution")

        if world.on_gpu:
            with _named("peak memory"):
                _passed(world, "peak memory", f"{peak_memory(world) / 2**20:,.0f} MiB of GPU memory")

        if world.is_main:
            for line in hints(split, config):
                print(wrapped(f"note  {line}", hang=6))


def _to_try(setup: Setup) -> BatchSplit:
    """The steps to try: two micro-batches, where a step has several, so that gradients are added up too."""
    batch = setup.batch
    size = batch.micro_batch if setup.world.on_gpu else min(IMAGES_ON_A_CPU, batch.micro_batch)
    return BatchSplit(size, min(2, batch.accumulate))


def _strict(setup: Setup, tried: BatchSplit) -> Setup:
    """`setup` with these steps, uncompiled, which end at the first loss that is not finite."""
    config = setup.config
    update = dataclasses.replace(config.update, bad_losses=1)
    memory = dataclasses.replace(config.memory, compile=False)
    return dataclasses.replace(setup, batch=tried, config=dataclasses.replace(config, update=update, memory=memory))


def _try_ranks(setup: Setup) -> str:
    """Exchanges a number between the ranks; alone, opens a port as ranks would, and splits the batch over all GPUs."""
    world, config = setup.world, setup.config
    if world.size > 1:
        total = sum_over_ranks(torch.full((), float(world.rank + 1), device=world.device), world)
        if int(total) != math.comb(world.size + 1, 2):
            raise ShardfeedError(f"the sum of an exchange between {world.size} ranks is wrong: {float(total)}")
        return f"{world.size}, which exchanged a number over {dist.get_backend()}"
    store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    store.set("a", "b")
    line = f"one process; ranks could meet at a port of localhost ({store.port} was free)"
    gpus = torch.cuda.device_count() if world.on_gpu else 1
    if gpus > 1:
        line += f"; {gpus} GPUs here, of which it uses one: torchrun --standalone --nproc-per-node {gpus} uses all"
        try:
            split_batch(config.batch, setup.batch.micro_batch, gpus)
        except UsageError as error:
            line += f", but {error}"
    return line


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Turns any error inside into the failure of the check `name`."""
    try:
        yield
    except Exception as error:
        detail = str(error) if isinstance(error, ShardfeedError) else f"{type(error).__name__}: {error}"
        kind = type(error) if isinstance(error, OnEveryRank | UsageError) else ShardfeedError
        raise kind(f"check failed: {name}: {detail}") from error


def _passed(world: World, name: str, detail: str) -> None:
    if world.is_main:
        print(wrapped(f"ok  {name}: {detail}", hang=4), flush=True)
