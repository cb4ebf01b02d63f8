"""What a checkpoint holds, so that the first step after resuming is the step that would have come.

It holds everything that changes while training but the learning rate, which follows from the steps left (see
`restore`). `identity` is what a run must have in common with a checkpoint to go on from it.
"""

import dataclasses
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from model.weights import ABOUT, OF_RANKS, About
from shards.common.errors import UsageError
from shards.dataset import Split
from train.checkpoints.earlier import FREE, SINCE, flat
from train.config import Config
from train.data import rest_of_epoch, training_size
from train.ranks.distributed import World, gather_on_main
from train.ranks.parallel import load_states, network_state, optimizer_state
from train.run import Learner, Run

if TYPE_CHECKING:
    from shards import Loader

FORMAT = 3


def identity(config: Config, split: Split, dtype: torch.dtype) -> dict[str, Any]:
    """What must be the same for a run to go on: the data set and every option that the arithmetic depends on."""
    return {
        "model": config.model,
        "classes": len(split.class_names),
        "images": len(split),
        "fingerprint": split.manifest.fingerprint,
        "part": split.part_identity,
        "precision": "tf32" if config.precision == "tf32" else str(dtype).removeprefix("torch."),
        **{name: value for name, value in flat(config).items() if name not in FREE},
    }


def refuse_other(path: Path, snapshot: Mapping[str, Any], own: Mapping[str, Any], ranks: int) -> None:
    """Raises UsageError if the snapshot, read from `path`, is of a run whose identity differs from `own`.

    The number of ranks may differ, except with local SGD, where each rank has weights of its own.
    """
    if snapshot["format"] != FORMAT:
        raise UsageError(f"{path} has format {snapshot['format']}; this version reads format {FORMAT}")
    # Earlier snapshots do not name the part of the split that they are of: --val-fraction alone made one.
    theirs = {**SINCE, "part": own.get("part"), **snapshot["identity"]}
    differing = [name for name in own if theirs.get(name) != own[name]]
    if differing:
        differences = "; ".join(f"{name} is {theirs.get(name)} there and {own[name]} here" for name in differing[:3])
        why = " (the learning rates of all steps follow from the number of epochs)" if "epochs" in differing[:3] else ""
        raise UsageError(
            f"{path} is of another run: {differences}{why}; "
            "give the same options to go on, or another --out to begin anew"
        )
    if "local-sgd" in own.values() and snapshot["ranks"] != ranks:
        raise UsageError(
            f"{path} is of {snapshot['ranks']} ranks with weights of their own (--parallel local-sgd): it goes on with "
            f"as many, not with {ranks}"
        )


def capture(run: Run, loader: "Loader", own: Mapping[str, Any], about: About | None = None) -> dict[str, Any] | None:
    """The snapshot on the main rank, None on the others. To be called by all ranks, between optimizer steps.

    about: what the weights are of, so that the file can be evaluated, exported and used for predictions by itself.
    Besides tensors it holds only numbers, strings, lists, tuples and dicts, so that `weights_only=True` reads it.
    """
    learner, losses, world = run.learner, run.losses, run.setup.world
    of_ranks = gather_on_main(_of_this_rank(run), world)
    network, optimizer = network_state(learner.network), optimizer_state(learner.network, learner.optimizer)
    if not world.is_main:
        return None
    return {
        "format": FORMAT,
        "identity": dict(own),
        ABOUT: None if about is None else dataclasses.asdict(about),
        "ranks": world.size,
        "network": network,
        "average": None if learner.average is None else learner.average.state_dict(),
        "optimizer": optimizer,
        "scaler": learner.scaler.state_dict(),
        "loader": loader.state_dict(),
        "step": run.step,
        "skipped": int(learner.skipped),
        "epoch": run.epoch,
        "losses": {
            "of_epoch": losses.of_epoch, "unlogged": losses.unlogged, "bad_in_a_row": losses.bad_in_a_row,
        },
        "best": run.best,
        "clock": run.clock.state_dict(),
        OF_RANKS: of_ranks,
    }  # fmt: skip


def restore(run: Run, loader: "Loader", snapshot: Mapping[str, Any]) -> None:
    """Puts a run that has just begun where `snapshot` was captured."""
    learner = run.learner
    load_states(learner.network, learner.optimizer, snapshot["network"], snapshot["optimizer"])
    if learner.average is not None:
        learner.average.load_state_dict(snapshot["average"])
    learner.scaler.load_state_dict(snapshot["scaler"])
    learner.skipped.fill_(snapshot["skipped"])

    size = training_size(run.setup.config, snapshot["epoch"])
    if size != training_size(run.setup.config, 1):
        loader.set_size(size)
    loader.load_state_dict(snapshot["loader"])

    run.epoch, run.best = snapshot["epoch"], snapshot["best"]
    _restore_schedule(run, loader, snapshot["step"])
    run.losses = dataclasses.replace(run.losses, **snapshot["losses"])
    run.clock.load_state_dict(snapshot["clock"])
    _restore_rank(run, snapshot[OF_RANKS])


@dataclass(frozen=True)
class StepStart:
    """What the micro-batches of a step change besides gradients, as it was before the first of them."""

    loader: dict[str, int]
    generators: dict[str, Any]
    buffers: list[Tensor]

    @staticmethod
    def of(run: Run, loader: "Loader") -> "StepStart":
        """To be called between two steps."""
        buffers = [buffer.clone() for buffer in run.learner.network.buffers()]
        return StepStart(loader.state_dict(), _generators(run.setup.world), buffers)

    def go_back(self, run: Run, loader: "Loader") -> None:
        """Undoes the part of a step that was computed since."""
        loader.load_state_dict(self.loader)
        _set_generators(self.generators, run.setup.world)
        for buffer, before in zip(run.learner.network.buffers(), self.buffers, strict=True):
            buffer.copy_(before)
        run.learner.optimizer.zero_grad(set_to_none=True)


def _restore_schedule(run: Run, loader: "Loader", step: int) -> None:
    """Sets the step and the learning rate.

    On another number of ranks an epoch has another number of optimizer steps, so those left are counted anew: in the
    rest of the epoch and in the epochs after it. The schedule is that of a whole run on the present ranks, entered so
    many steps before its end: it goes on where the same part of the images was seen, and ends at the last step.
    `run.step` goes on counting the steps really taken.
    """
    setup, learner = run.setup, run.learner
    drop_last = setup.config.update.drop_last
    rest = setup.batch.steps(len(rest_of_epoch(loader, setup)), drop_last)
    left = rest + (setup.config.epochs - run.epoch) * setup.batch.steps(len(loader), drop_last)
    position = min(run.total_steps - left, run.total_steps - 1)
    entered = {"last_epoch": position - 1, "_step_count": position + 1}
    learner.schedule.load_state_dict({**learner.schedule.state_dict(), **entered})
    learner.schedule.step()
    run.step, run.total_steps = step, step + left
    if learner.local_sgd is not None:
        learner.local_sgd.step = step


def _of_this_rank(run: Run) -> dict[str, Any]:
    """What differs between ranks: random generators, and batch norm's statistics, which are averaged at an epoch's end.

    With local SGD the weights and the optimizer's state too.
    """
    world = run.setup.world
    return {
        "generators": _generators(world),
        "buffers": [buffer.cpu() for buffer in _buffers(run.learner)] if world.size > 1 else [],
        "local_sgd": _of_local_sgd(run.learner),
    }


def _generators(world: World) -> dict[str, Any]:
    name, key, *rest = np.random.get_state()  # noqa: NPY002 - the global generator, which a network may draw from
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(world.device) if world.on_gpu else None,
        "numpy": (name, np.asarray(key).tolist(), *rest),
        "python": random.getstate(),
    }


def _set_generators(state: Mapping[str, Any], world: World) -> None:
    torch.set_rng_state(state["torch"])
    if world.on_gpu and state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"], world.device)
    np.random.set_state(state["numpy"])  # noqa: NPY002
    random.setstate(state["python"])


def _buffers(learner: Learner) -> list[Tensor]:
    return [*learner.network.buffers(), *([] if learner.average is None else learner.average.module.buffers())]


def _of_local_sgd(learner: Learner) -> dict[str, Any] | None:
    """Everything that differs between the ranks of local SGD."""
    if learner.local_sgd is None:
        return None
    parts = {
        "network": learner.network, "average": learner.average, "optimizer": learner.optimizer,
        "scaler": learner.scaler,
    }  # fmt: skip
    states = {name: part.state_dict() for name, part in parts.items() if part is not None}
    return tree_map_only(Tensor, Tensor.cpu, {**states, "skipped": int(learner.skipped)})  # type: ignore[no-any-return]


def _restore_rank(run: Run, of_ranks: list[dict[str, Any]]) -> None:
    """Restores what differs between ranks.

    A rank that the saved run did not have keeps the generators that it began with. On another number of ranks every
    rank gets the mean of the saved statistics.
    """
    learner, world = run.learner, run.setup.world
    if world.rank < len(of_ranks):
        own = of_ranks[world.rank]
        _set_generators(own["generators"], world)
        if own["local_sgd"] is not None and learner.local_sgd is not None:
            learner.network.load_state_dict(own["local_sgd"]["network"])
            learner.optimizer.load_state_dict(own["local_sgd"]["optimizer"])
            learner.scaler.load_state_dict(own["local_sgd"]["scaler"])
            learner.skipped.fill_(own["local_sgd"]["skipped"])
            if learner.average is not None:
                learner.average.load_state_dict(own["local_sgd"]["average"])
    for position, buffer in enumerate(_buffers(learner)):
        saved = [rank["buffers"][position] for rank in of_ranks if rank["buffers"]]
        if len(saved) == world.size:
            buffer.copy_(saved[world.rank])
        elif saved and buffer.is_floating_point():
            buffer.copy_(torch.stack(saved).mean(0))
