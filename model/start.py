"""Weights that a network begins with: files of ours and of others, what is wrong with them, and a head made anew.

start = read_start("backbone.safetensors")     # or model/published.py: what torchvision and timm publish
for line in fit(network, start, class_names): print(line)
"""

import argparse
import importlib.util
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.networks import copy_into, in_head
from model.options import OLD, SAFETENSORS, require_weights
from model.weights import NOT_PLAIN, About, about_of, is_checkpoint, read_saved, state_of
from shards.common.arguments import as_path
from shards.common.errors import MissingDependency, ShardfeedError, UsageError
from shards.common.terminal import counted

# Where the training scripts of torchvision and timm keep the state dict in their checkpoints.
INSIDE = ("model", "state_dict")
# What wrappers put before each name: DistributedDataParallel, torch.compile.
WRAPPERS = ("module.", "_orig_mod.")
# Names that a message shows.
FEW = 3


@dataclass(frozen=True)
class Start:
    """Weights, where they are from, and what they say of themselves; None where they say nothing."""

    title: str
    state: dict[str, Tensor]
    about: About | None = None


def read_start(path: str | Path) -> Start:
    """The weights in a file: ours, a checkpoint, a state dict that torch.save wrote, or .safetensors.

    No code in the file is run. Raises UsageError where there is no such file or it holds no weights, ShardfeedError
    where it is damaged, MissingDependency for .safetensors where that package is not installed.
    """
    path = as_path("the file of the weights", path)
    require_weights(path)
    if path.suffix == SAFETENSORS:
        return Start(str(path), checked_state(_read_safetensors(path), path))
    with torch.serialization.safe_globals([argparse.Namespace]):  # options beside the weights, in others' checkpoints
        saved = _read(path)
    if not is_checkpoint(saved) and isinstance(saved, Mapping):
        for name in INSIDE:
            if isinstance(saved.get(name), Mapping):
                return Start(str(path), checked_state(saved[name], path))
    return Start(str(path), checked_state(state_of(saved), path), about_of(saved))


def _read(path: Path) -> Any:
    with path.open("rb") as file:
        old = file.read(len(OLD)) == OLD
    if not old:
        return read_saved(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # there is no checksum by which to tell damage apart
        raise ShardfeedError(f"{path} is damaged, or {NOT_PLAIN}") from error


def _read_safetensors(path: Path) -> Any:
    if importlib.util.find_spec("safetensors") is None:
        raise MissingDependency(f"{path} needs the package safetensors: pip install 'shardfeed[timm]'")
    import safetensors.torch

    try:
        return safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise ShardfeedError(f"{path} is damaged, or is no file of safetensors ({error})") from error


def checked_state(state: Any, path: str | Path) -> dict[str, Tensor]:
    """`state` as a dict of names, without those of wrappers, to tensors.

    Raises UsageError if it is none, ShardfeedError for values that are not finite.
    """
    if not isinstance(state, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    ):
        raise UsageError(f"{path} holds no plain state dict, that is a mapping of names to tensors")
    for wrapper in WRAPPERS:
        if state and all(key.startswith(wrapper) for key in state):
            state = {key.removeprefix(wrapper): value for key, value in state.items()}
    for key, value in state.items():
        if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
            raise UsageError(f"{path} is no file of ordinary weights: {key} is sparse, quantized or without values")
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise ShardfeedError(f"{path} has values in {key} that are not finite")
    return dict(state)


def fit(network: nn.Module, start: Start, class_names: Sequence[str], *, freeze: bool = False) -> list[str]:
    """Copies the weights into `network`, but for a head of other classes; returns what to say of it, a line each.

    class_names: those that the network is for. A head stays as it is where the weights have none, one of another class
    count, or one whose classes have other names. Tensors that only one side has are named in a line. Names of a network
    in a larger module, `backbone.conv1.weight`, lose what they all begin with.

    Raises UsageError where a tensor outside the head has another shape, or none has a name of the network's; with
    `freeze`, for a network whose body is not trained, also where one is missing, or where the file has layers between
    its own.
    """
    own, of_head = network.state_dict(), in_head(network)
    start, prefix = _without_prefix(start, [key for key in own if not of_head(key)])
    state = start.state
    common = [key for key in own if key in state]
    body = [key for key in common if not of_head(key)]
    wrong = [key for key in body if own[key].shape != state[key].shape]
    if not body:
        raise UsageError(
            f"{start.title} is of another model: none of its {counted(len(state), 'tensor')} ({_first(state)}) has the "
            f"name of one outside the head here ({_first(own)})"
        )
    if wrong:
        shapes = f"{tuple(state[wrong[0]].shape)} instead of {tuple(own[wrong[0]].shape)}"
        raise UsageError(
            f"{start.title} is of another model: {len(wrong)} of its tensors have other shapes here, first {wrong[0]} "
            f"with {shapes}"
        )
    # Files of before batch norm counted its batches have no such tensors, and nothing reads them.
    missing = [k for k in own if k not in state and not of_head(k) and not k.endswith("num_batches_tracked")]
    some = f"{len(missing):,} of the {len(body) + len(missing):,} tensors outside the head here are not in the file"
    if missing and freeze:
        raise UsageError(
            f"{start.title} is of another model: {some} and would stay random, and "
            f"`python -m train --freeze` trains none of them: {_first(missing)}"
        )
    surplus = [key for key in state if key not in own and not of_head(key)]
    have = "tensor of the file has" if len(surplus) == 1 else "tensors of the file have"
    left_over = f"{len(surplus):,} {have} no place in the network"
    if freeze and (inside := _inside(surplus, own)):
        raise UsageError(
            f"{start.title} is of another model: {left_over}, and "
            f"`python -m train --freeze` would keep features made without these layers: {_first(inside)}"
        )
    source = start.title + (f", whose names begin with {prefix}" if prefix else "")
    lines = [f"weights: {counted(len(body), 'tensor')} of {source}"]
    head = [key for key in own if of_head(key)]
    if why := _why_new(start, [key for key in head if key in state], own, class_names):
        lines.append(f"new head of {counted(len(class_names), 'class', 'classes')}{why}")
    elif head:
        body += [key for key in head if key in state]
        if len(body) == len(own):
            lines = [f"weights: all {counted(len(body), 'tensor')} of {source}"]
    copy_into(network, {key: state[key] for key in body})
    if missing:
        lines.append(f"{some} and begin random (is it of another model?): {_first(missing)}")
    if surplus:
        asked = " (is it of another model?)" if _inside(surplus, own) else ""
        lines.append(f"{left_over}{asked}: {_first(surplus)}")
    return lines


def _without_prefix(start: Start, body: Sequence[str]) -> tuple[Start, str]:
    """The weights, and what was taken off their names where they stand in a larger module, as `backbone.` or `model.`.

    `body`: names of the network's. Where one of them is in the file as it is, or none with a prefix, nothing is taken
    off. Raises UsageError where the names stand behind several prefixes, as of a student and its teacher.
    """
    state = start.state
    if not any(key in state for key in body):
        first = min(body, default="")
        behind = [key.removesuffix(first) for key in state if key.endswith(f".{first}")]
        found = {prefix: sum(prefix + key in state for key in body) for prefix in behind}
        prefixes = [prefix for prefix in found if found[prefix] == max(found.values())]
        if len(prefixes) > 1:
            raise UsageError(
                f"{start.title} holds several networks, whose names begin with {' and '.join(prefixes)}: save the "
                "state dict of one of them"
            )
        for prefix in prefixes:
            inside = {key.removeprefix(prefix): state[key] for key in state if key.startswith(prefix)}
            return replace(start, state=inside), prefix
    return start, ""


def _inside(surplus: Sequence[str], own: Mapping[str, Tensor]) -> list[str]:
    """Weights of `surplus` that belong to a part of the network, as layer1.2.conv1.weight to layer1 of ResNet-18.

    Others, as those of a second head or a projection, and tables that are computed, change nothing in what it computes.
    """
    parts = {key.partition(".")[0] for key in own}
    return [key for key in surplus if key.endswith(".weight") and key.partition(".")[0] in parts]


def _why_new(start: Start, there: list[str], own: Mapping[str, Tensor], class_names: Sequence[str]) -> str:
    """Why the head is not taken from the weights; empty where it is."""
    if not there:
        return ": the weights have none"
    if any(own[key].shape != start.state[key].shape for key in there):
        return f" in place of one for {len(start.state[there[0]]):,}"
    if start.about is not None and start.about.class_names and start.about.class_names != tuple(class_names):
        return " in place of one for classes of other names"
    return ""


def _first(names: Any) -> str:
    names = list(names)
    return ", ".join(names[:FEW]) + (" ..." if len(names) > FEW else "")
