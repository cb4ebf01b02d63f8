"""`python -m train --data DIR --check`: is everything ready to train? One line per check, in seconds.

The checks build on each other, so the first failure ends them.
"""

import dataclasses
import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

import shards
from shards.common.errors import ShardfeedError
from shards.common.versions import versions
from shards.dataset import choose_split
from train.config import Config
from train.data import HELD_OUT, TRAINING, training_loader
from train.engine import train_epoch
from train.optim.batch_split import portions
from train.optim.optimizer import choose_dtype
from train.optim.sizes import training_size
from train.ranks.distributed import World, joined
from train.report.environment import device_name, peak_memory
from train.report.metrics import Recorder
from train.run import begin, make_network

STEPS = 3


def check(config: Config) -> None:
    """Prints a line for each check that passes; nothing is written.

    Raises ShardfeedError, naming the check, at the first that fails.
    """
    with joined(config.device) as world:
        with _named("imports and devices"):
            dtype = choose_dtype(config, world.device)
            _ = shards.Loader  # imports DALI
            packages = ", ".join(f"{name} {version}" for name, version in versions().items())
            _passed(
                world, "imports and devices", f"{packages}; {device_name(world)}, {str(dtype).removeprefix('torch.')}"
            )

        with _named("data set opens"):
            split, held_out = (
                choose_split(config.data, [TRAINING], config.feeding.cache),
                choose_split(config.data, HELD_OUT, config.feeding.cache),
            )
            sizes = f"{split.name} {len(split):,} images, {held_out.name} {len(held_out):,}"
            _passed(world, "data set opens", f"{sizes}, {len(split.class_names):,} classes")

        with _named("batch shape"), training_loader(split, config, world, dtype) as loader:
            portion, size = portions(config, world), training_size(config, epoch=1)
            batches = list(itertools.islice(loader, STEPS * portion.accumulate))
            shape, expected = tuple(batches[0][0].shape), (portion.micro_batch, 3, size, size)
            if shape != expected:
                raise ShardfeedError(f"a batch has shape {shape} instead of {expected}")
            _passed(world, "batch shape", f"{shape}, {batches[0][0].dtype} on {batches[0][0].device}")

        with _named("labels in range"):
            low, high = _label_range(batches)
            if low < 0 or high >= len(split.class_names):
                raise ShardfeedError(f"labels reach from {low} to {high}, outside 0 to {len(split.class_names) - 1}")
            _passed(world, "labels in range", f"{low} to {high}, of 0 to {len(split.class_names) - 1}")

        with _named("training steps"), Recorder(None, {}) as recorder:
            network = make_network(config, len(split.class_names), world)
            run = begin(network, config, world, dtype, micro_batches=len(batches))
            strict = dataclasses.replace(config, update=dataclasses.replace(config.update, bad_losses=1))
            loss = train_epoch(run, batches, strict, world, recorder, epoch=1)
            _passed(world, "training steps", f"{run.step} of {config.model}, loss {loss:.3f}")

        with _named("peak memory"):
            kind = "GPU memory" if world.on_gpu else "main memory"
            _passed(world, "peak memory", f"{peak_memory(world) / 2**20:,.0f} MiB of {kind}")


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Turns whatever goes wrong inside into the failure of the check `name`."""
    try:
        yield
    except Exception as error:
        detail = str(error) if isinstance(error, ShardfeedError) else f"{type(error).__name__}: {error}"
        raise ShardfeedError(f"check failed: {name}: {detail}") from error


def _passed(world: World, name: str, detail: str) -> None:
    if world.is_main:
        print(f"ok  {name}: {detail}")


def _label_range(batches: list[tuple[Tensor, Tensor]]) -> tuple[int, int]:
    labels = torch.cat([labels for _, labels in batches])
    return int(labels.min()), int(labels.max())
