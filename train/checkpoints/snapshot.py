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
from torch import Tensor
from torch.utils._pytree import tree_map_only

from shards.common.errors import UsageError
from shards.dataset import Split
from train.config import Config
from train.data import rest_of_epoch
from train.optim.batch_split import portions, steps_per_epoch
from train.optim.sizes import training_size
from train.ranks.distributed import World, gather_on_main
from train.ranks.parallel import load_states, network_state, optimizer_state
from train.report.metrics import Reading
from train.run import Run

if TYPE_CHECKING:
    from shards import Loader

FORMAT = 2

# Options that leave the arithmetic of a step alone, or all but its rounding; of `precision` it is the resolved type
# that counts. In portions of another size batch norm sees other batches, as on another number of ranks.
FREE = {
    "data", "recipe", "out", "device", "precision", "threads", "on_error", "log_every", "check", "evaluate", "find_lr",
    "resume", "checkpoint_minutes", "keep_every", "micro_batch", "compile", "recompute", "offload", "bad_losses",
    "val_size", "val_resize", "flip_tta", "wandb", "decode", "cache_dir", "cache_size",
}  # fmt: skip


def identity(config: Config, split: Split, dtype: torch.dtype) -> dict[str, str | int | float | None]:
    """What must be the same for a run to go on: the data set and every option that the arithmetic depends on."""
    options: dict[str, Any] = {}
    for name, value in dataclasses.asdict(config).items():
        options |= value if isinstance(value, dict) else {name: value}
    return {
        "model": config.model,
        "classes": len(split.class_names),
        "images": len(split),
        "fingerprint": split.manifest.fingerprint,
        "precision": "tf32" if config.precision == "tf32" else str(dtype).removeprefix("torch."),
        **{name: value for name, value in options.items() if name not in FREE},
    }


def refuse_other(path: Path, state: Mapping[str, Any], own: Mapping[str, Any], world: World) -> None:
    """Raises UsageError if the checkpoint `state`, read from `path`, is of a run that differs from `own`.

    The ranks may be others, unless they train apart.
    """
    if state["format"] != FORMAT:
        raise UsageError(f"{path} has format {state['format']}; this version reads format {FORMAT}")
    theirs = state["identity"]
    differing = [name for name in own if theirs.get(name) != own[name]]
    if differing:
        differences = "; ".join(f"{name} is {theirs.get(name)} there and {own[name]} here" for name in differing[:3])
        why = " (the learning rates of all steps follow from the number of epochs)" if "epochs" in differing[:3] else ""
        raise UsageError(
            f"{path} is of another run: {differences}{why}; "
            "give the same options to go on, or another --out to begin anew"
        )
    if "local-sgd" in own.values() and state["ranks"] != world.size:
        raise UsageError(
            f"{path} is of {state['ranks']} ranks that trained apart (--parallel local-sgd): it goes on with as many, "
            f"not with {world.size}"
        )


def capture(run: Run, loader: "Loader", own: Mapping[str, Any], world: World) -> dict[str, Any] | None:
    """The checkpoint's content on the main rank, None on the others; to be called by all, between optimizer steps.

    Besides tensors it holds only numbers, strings, lists, tuples and dicts: `weights_only=True` reads it.
    """
    ranks = gather_on_main(_of_this_rank(run, world), world)
    network, optimizer = network_state(run.network), optimizer_state(run.network, run.optimizer)
    if not world.is_main:
        return None
    return {
        "format": FORMAT,
        "identity": dict(own),
        "ranks": world.size,
        "network": network,
        "average": None if run.average is None else run.average.state_dict(),
        "optimizer": optimizer,
        "scaler": run.scaler.state_dict(),
        "loader": loader.state_dict(),
        "step": run.step,
        "skipped": int(run.skipped),
        "bad_losses": run.bad_losses,
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
    load_states(run.network, run.optimizer, state["network"], state["optimizer"])
    if run.average is not None:
        run.average.load_state_dict(state["average"])
    run.scaler.load_state_dict(state["scaler"])
    if training_size(config, state["epoch"]) != training_size(config, 1):
        loader.set_size(training_size(config, state["epoch"]))
    loader.load_state_dict(state["loader"])

    accumulate, drop_last = portions(config, world).accumulate, config.update.drop_last
    per_epoch = steps_per_epoch(len(loader), accumulate, drop_last)
    rest = steps_per_epoch(len(rest_of_epoch(loader, config, world)), accumulate, drop_last)
    left = rest + (config.epochs - state["epoch"]) * per_epoch
    position = min(run.total_steps - left, run.total_steps - 1)
    entered = {"last_epoch": position - 1, "_step_count": position + 1}
    run.schedule.load_state_dict({**run.schedule.state_dict(), **entered})
    run.schedule.step()
    run.step, run.total_steps = state["step"], state["step"] + left
    run.skipped.fill_(state["skipped"])
    run.bad_losses = state["bad_losses"]
    if run.averager is not None:
        run.averager.step = run.step

    run.epoch, run.loss_of_epoch, run.best = state["epoch"], state["loss_of_epoch"], state["best"]
    run.unlogged = list(state["unlogged"])
    readings = {name: Reading(*values) for name, values in state["readings"].items()}
    run.clock.set(readings["now"])
    run.entered, run.logged, run.warm = readings["entered"], readings["logged"], readings.get("warm")
    run.began -= state["wall_seconds"]
    _restore_rank(run, state["of_ranks"], world)


def _of_this_rank(run: Run, world: World) -> dict[str, Any]:
    """The random generators, and batch norm's statistics, which stay each rank's own until an epoch ends.

    Of ranks that train apart, the weights and the optimizer's state too.
    """
    name, key, *rest = np.random.get_state()  # noqa: NPY002 - the global generator, whoever draws from it
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(world.device) if world.on_gpu else None,
        "numpy": (name, np.asarray(key).tolist(), *rest),
        "python": random.getstate(),
        "buffers": [buffer.cpu() for buffer in _buffers(run)] if world.size > 1 else [],
        "apart": _apart(run),
    }


def _buffers(run: Run) -> list[Tensor]:
    return [*run.network.buffers(), *([] if run.average is None else run.average.module.buffers())]


def _apart(run: Run) -> dict[str, Any] | None:
    """Everything that differs between the ranks of local SGD."""
    if run.averager is None:
        return None
    parts = {"network": run.network, "average": run.average, "optimizer": run.optimizer, "scaler": run.scaler}
    states = {name: part.state_dict() for name, part in parts.items() if part is not None}
    return tree_map_only(Tensor, Tensor.cpu, {**states, "skipped": int(run.skipped)})  # type: ignore[no-any-return]


def _restore_rank(run: Run, saved: list[dict[str, Any]], world: World) -> None:
    """A rank that did not exist keeps the generators that it began with; on other ranks, statistics are averaged."""
    if world.rank < len(saved):
        own = saved[world.rank]
        torch.set_rng_state(own["torch"])
        if world.on_gpu and own["cuda"] is not None:
            torch.cuda.set_rng_state(own["cuda"], world.device)
        np.random.set_state(own["numpy"])  # noqa: NPY002
        random.setstate(own["python"])
        if own["apart"] is not None and run.averager is not None:
            run.network.load_state_dict(own["apart"]["network"])
            run.optimizer.load_state_dict(own["apart"]["optimizer"])
            run.scaler.load_state_dict(own["apart"]["scaler"])
            run.skipped.fill_(own["apart"]["skipped"])
            if run.average is not None:
                run.average.load_state_dict(own["apart"]["average"])
    for position, buffer in enumerate(_buffers(run)):
        of_ranks = [rank["buffers"][position] for rank in saved if rank["buffers"]]
        if len(of_ranks) == world.size:
            buffer.copy_(of_ranks[world.rank])
        elif of_ranks and buffer.is_floating_point():
            buffer.copy_(torch.stack(of_ranks).mean(0))
