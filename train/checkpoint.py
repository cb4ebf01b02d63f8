"""The trained weights on disk: a plain state dict that `torch.load(..., weights_only=True)` opens anywhere."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from shards.atomic import replacing
from shards.errors import ShardfeedError, UsageError

WEIGHTS = "imagenet_trained_model.pth"


def save_weights(model: nn.Module, path: Path) -> None:
    """Writes the model's state dict (parameters and buffers, on the CPU, contiguous) whole or not at all.

    `model` must be the network itself: a wrapper such as DistributedDataParallel prefixes every key.
    """
    state = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    with replacing(path) as file:
        torch.save(state, file)


def load_weights(model: nn.Module, path: Path) -> None:
    """Reads weights that `save_weights` wrote, or those in a checkpoint, into `model`.

    It must be the same network for as many classes.

    Raises UsageError if there is no such file or it is of another model or class count; ShardfeedError if the
    file is damaged or is no state dict.
    """
    if not path.is_file():
        raise UsageError(f"{path} is not a file: give the .pth file that training wrote")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # in a damaged file any byte may be wrong: a dozen types of exception were seen
        raise ShardfeedError(f"{path} is damaged, or was not written by torch.save") from error
    if isinstance(state, Mapping) and "of_ranks" in state:  # a checkpoint: train/state.py
        state = state.get("network")
    if not isinstance(state, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    ):
        raise ShardfeedError(f"{path} holds no plain state dict, that is a mapping of names to tensors")
    _compare(model.state_dict(), state, path)
    model.load_state_dict(state)


def _compare(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], path: Path) -> None:
    missing, surplus = expected.keys() - found.keys(), found.keys() - expected.keys()
    if missing or surplus:
        key, verb = (min(missing), "lacks") if missing else (min(surplus), "also has")
        raise UsageError(
            f"{path} is of another model: of the {len(expected)} tensors expected it has "
            f"{len(expected) - len(missing)}, and it {verb} {key}; name its model with --model"
        )
    differing = [key for key in expected if expected[key].shape != found[key].shape]
    if not differing:
        return
    first = differing[0]
    wanted, given = expected[first].shape, found[first].shape
    # The classes show only in the leading dimension of the last layer's weight and bias.
    if set(differing) <= set(list(expected)[-2:]) and wanted[1:] == given[1:]:
        raise UsageError(f"{path} is for {given[0]} classes, but the data set has {wanted[0]}")
    raise UsageError(
        f"{path} is of another model: {first} has shape {tuple(given)} instead of {tuple(wanted)}; "
        "name its model with --model"
    )
