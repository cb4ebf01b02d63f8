"""What a checkpoint holds, so that the step after resuming is the step that would have come.

Everything that changes while training, besides the learning rate: that is a function of the steps left (see
`restore`). Whoever resumes must train the same thing: `identity` says what that is.
"""

import dataclasses
import random
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from shards.dataset import Split
from shards.errors import UsageError
from train.config import Config
from train.data import rest_of_epoch
from train.distributed import World, gather_on_main
from train.metrics import Reading
from train.optim import steps_per_epoch
from train.run import Run

if TYPE_CHECKING:
    from shards import Loader

FORMAT = 1

# Options that leave the arithmetic of a step alone; of `precision` it is the resolved type that counts.
FREE = {
    "data", "recipe", "out", "device", "precision", "threads", "on_error", "log_every", "check", "evaluate", "resume",
    "checkpoint_minutes", "keep_every",
}  # fmt: skip


def identity(config: Config, split: Split, dtype: torch.dtype) -> dict[str, str | int | float | None]:
    """What must be the same for a run to go on: the data set and every option that the arithmetic depends on."""
    options = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return {
        "model": config.model,
        "classes": len(split.class_names),
        "images": len(split),
        "fingerprint": split.manifest.fingerprint,
        "precision": str(dtype).removeprefix("torch."),
        **{name: value for name, value in options.items() if name not in FREE},
    }


def refuse_other(path: Path, state: Mapping[str, Any], own: Mapping[str, Any], world: World) -> None:
    """Raises UsageError if the checkpoint `state`, read from `path`, is of a run that differs from `own`.

    The ranks may be others. So may micro-batch and accumulation, where the images of a step over all ranks stay.
    """
    if state["format"] != FORMAT:
        raise UsageError(f"{path} has format {state['format']}; this version reads format {FORMAT}")
    theirs = state["identity"]
    differing = [name for name in own if theirs.get(name) != own[name]]
    if _global_batch(theirs, state["ranks"]) == _global_batch(own, world.size):
        differing = [name for name in differing if name not in ("micro_batch", "accumulate")]
    if not differing:
        return
    differences = "; ".join(f"{name} is {theirs.get(name)} there and {own[name]} here" for name in differing[:3])
    why = " (the learning rates of all steps follow from the number of epochs)" if "epochs" in differing[:3] else ""
    raise UsageError(
        f"{path} is of another run: {differences}{why}; give the same options to go on, or another --out to begin anew"
    )


def _global_batch(options: Mapping[str, Any], ranks: int) -> int:
    return int(options["micro_batch"] * options["accumulate"] * ranks)


def capture(run: Run, loader: "Loader", own: Mapping[str, Any], world: World) -> dict[str, Any] | None:
    """The checkpoint's content on the main rank, None on the others; to be called by all, between optimizer steps.

    Besides tensors it holds only numbers, strings, lists, tuples and dicts: `weights_only=True` reads it.
    """
    ranks = gather_on_main(_of_this_rank(run.network, world), world)
    if not world.is_main:
        return None
    return {
        "format": FORMAT,
        "identity": dict(own),
        "ranks": world.size,
        "network": run.network.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "scaler": run.scaler.state_dict(),
        "loader": loader.state_dict(),
        "step": run.step,
        "epoch": run.epoch,
        "loss_of_epoch": run.loss_of_epoch,
        "unlogged": run.unlogged,
        "best": run.best,
        "readings": {
            name: dataclasses.astuple(reading)
            for name, reading in (
                ("now", run.clock.read()),
                ("entered", run.entered),
                ("logged", run.logged),
                ("warm", run.warm),
            )
            if reading is not None
        },
        "wall_seconds": time.perf_counter() - run.began,
        "of_ranks": ranks,
    }


def restore(run: Run, loader: "Loader", state: Mapping[str, Any], config: Config, world: World) -> None:
    """Puts a run that has just begun where `state` was captured.

    On another number of ranks an epoch has another number of optimizer steps. What is left is counted anew: the
    steps in the rest of the epoch and in the epochs after it. The schedule is that of a whole run on the present
    ranks, entered so many steps before its end; so it goes on where the same part of the images was seen, and ends
    at the last step. `run.step` goes on counting the steps really taken.
    """
    run.network.load_state_dict(state["network"])
    run.optimizer.load_state_dict(state["optimizer"])
    run.scaler.load_state_dict(state["scaler"])
    loader.load_state_dict(state["loader"])

    per_epoch = steps_per_epoch(len(loader), config.accumulate)
    rest = steps_per_epoch(len(rest_of_epoch(loader, config, world)), config.accumulate)
    left = rest + (config.epochs - state["epoch"]) * per_epoch
    position = min(run.total_steps - left, run.total_steps - 1)
    entered = {"last_epoch": position - 1, "_step_count": position + 1}
    run.schedule.load_state_dict({**run.schedule.state_dict(), **entered})
    run.schedule.step()
    run.step, run.total_steps = state["step"], state["step"] + left

    run.epoch, run.loss_of_epoch, run.best = state["epoch"], state["loss_of_epoch"], state["best"]
    run.unlogged = list(state["unlogged"])
    readings = {name: Reading(*values) for name, values in state["readings"].items()}
    run.clock.set(readings["now"])
    run.entered, run.logged, run.warm = readings["entered"], readings["logged"], readings.get("warm")
    run.began -= state["wall_seconds"]
    _restore_rank(run.network, state["of_ranks"], world)


def _of_this_rank(network: nn.Module, world: World) -> dict[str, Any]:
    """The random generators, and batch norm's statistics, which stay each rank's own until an epoch ends."""
    name, key, *rest = np.random.get_state()  # noqa: NPY002 - the global generator, whoever draws from it
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(world.device) if world.on_gpu else None,
        "numpy": (name, np.asarray(key).tolist(), *rest),
        "python": random.getstate(),
        "buffers": [buffer.cpu() for buffer in network.buffers()] if world.size > 1 else [],
    }


def _restore_rank(network: nn.Module, saved: list[dict[str, Any]], world: World) -> None:
    """A rank that did not exist keeps the generators that it began with; on other ranks, statistics are averaged."""
    if world.rank < len(saved):
        own = saved[world.rank]
        torch.set_rng_state(own["torch"])
        if world.on_gpu and own["cuda"] is not None:
            torch.cuda.set_rng_state(own["cuda"], world.device)
        np.random.set_state(own["numpy"])  # noqa: NPY002
        random.setstate(own["python"])
    for position, buffer in enumerate(network.buffers()):
        of_ranks = [rank["buffers"][position] for rank in saved if rank["buffers"]]
        if len(of_ranks) == world.size:
            buffer.copy_(of_ranks[world.rank])
        elif of_ranks and buffer.is_floating_point():
            buffer.copy_(torch.stack(of_ranks).mean(0))
