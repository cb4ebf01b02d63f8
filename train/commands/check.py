"""`python -m train --data DIR --check`: is everything ready to train? One line per check, in seconds.

Each check needs the ones before it, so the first failure ends the command.
"""

import dataclasses
import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import shards
from shards.common.errors import ShardfeedError
from shards.common.versions import versions
from train.config import Config
from train.data import open_splits, training_loader, training_size
from train.engine import train_epoch
from train.optim.optimizer import choose_dtype
from train.ranks.distributed import World, joined
from train.report.environment import device_name, peak_memory
from train.report.metrics import Recorder
from train.run import begin, set_up

STEPS = 3


def check(config: Config) -> None:
    """Prints a line for each check that passes; writes no file.

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
            split, held_out = open_splits(config)
            validation = "no validation" if held_out is None else f"{held_out.title}: {len(held_out):,}"
            sizes = f"{split.title}: {len(split):,} images, {validation}"
            _passed(world, "data set opens", f"{sizes}, {len(split.class_names):,} classes")

        with _named("training steps"):
            network, setup = set_up(config, len(split.class_names), world)

        with _named("batch shape"), training_loader(split, setup) as loader:
            size = training_size(config, epoch=1)
            batches = list(itertools.islice(loader, STEPS * setup.batch.accumulate))
            shape, expected = tuple(batches[0][0].shape), (setup.batch.micro_batch, 3, size, size)
            if shape != expected:
                raise ShardfeedError(f"a batch has shape {shape} instead of {expected}")
            _passed(world, "batch shape", f"{shape}, {batches[0][0].dtype} on {batches[0][0].device}")

        with _named("training steps"), Recorder(None, {}) as recorder:
            strict = dataclasses.replace(config, update=dataclasses.replace(config.update, bad_losses=1))
            run = begin(network, dataclasses.replace(setup, config=strict), micro_batches=len(batches))
            loss = train_epoch(run, batches, recorder, epoch=1)
            _passed(world, "training steps", f"{run.step} of {config.model}, loss {loss:.3f}")

        with _named("peak memory"):
            kind = "GPU memory" if world.on_gpu else "main memory"
            _passed(world, "peak memory", f"{peak_memory(world) / 2**20:,.0f} MiB of {kind}")


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Turns any error inside into the failure of the check `name`."""
    try:
        yield
    except Exception as error:
        detail = str(error) if isinstance(error, ShardfeedError) else f"{type(error).__name__}: {error}"
        raise ShardfeedError(f"check failed: {name}: {detail}") from error


def _passed(world: World, name: str, detail: str) -> None:
    if world.is_main:
        print(f"ok  {name}: {detail}")
