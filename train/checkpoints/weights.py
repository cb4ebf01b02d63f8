"""The trained weights of a run: their file, what it says about them, and loading them into a network.

model/weights.py describes the file, and how to use it without a data set.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from model.start import Start, read_start
from model.weights import About, save_weights
from shards.common.errors import UsageError
from shards.common.terminal import counted
from shards.dataset import Split
from shards.sampling.crops import RESIZE, SIZE
from train.config import Config
from train.options import Pixels
from train.report.result import WEIGHTS

__all__ = ["WEIGHTS", "describe", "describe_run", "load_weights", "save_weights"]


def describe(
    held_out: Split,
    *,
    model: str,
    size: int,
    resize: int | None = None,
    blur_pool: bool = False,
    flip_tta: bool = False,
    pixels: Pixels = Pixels(),  # noqa: B008 - frozen
) -> About:
    """What the file of the weights says of a network that was evaluated on `held_out` with these values.

    resize: as for `Loader`, with the same default.
    """
    if resize is None:
        resize, stored = round(size * RESIZE / SIZE), held_out.manifest.settings.short_side
        resize = resize if stored is None else min(resize, stored)
    names = held_out.class_names
    return About(
        model=model,
        class_names=names,
        size=size,
        resize=resize,
        blur_pool=blur_pool,
        flip_tta=flip_tta,
        **dataclasses.asdict(pixels.resolved()),
    )


def describe_run(held_out: Split, config: Config) -> About:
    """What the files of a run's weights say."""
    sizes = config.sizes
    return describe(
        held_out,
        model=config.model,
        size=sizes.val_size or config.size,
        resize=sizes.val_resize,
        blur_pool=config.blur_pool,
        flip_tta=sizes.flip_tta,
        pixels=config.pixels,
    )


def load_weights(model: nn.Module, path: Path) -> About | None:
    """Loads all weights of `model` from a file; returns what the file says of them. Raises as `load_whole`."""
    start = read_start(path)
    load_whole(model, start)
    return start.about


def load_whole(model: nn.Module, start: Start) -> None:
    """Loads weights into `model`, each of them, for evaluation.

    Raises UsageError if there is no such file or it is of another model or class count; ShardfeedError if the
    file is damaged or is no state dict.
    """
    _compare(model.state_dict(), start.state, start.title, start.about)
    model.load_state_dict(start.state)


def _compare(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], path: str, about: About | None) -> None:
    named = "" if about is None else f", {about.model}{' with blur pooling' if about.blur_pool else ''}"
    advice = "name its model with --model" if about is None else "leave --model and --blur-pool to the file"
    missing, surplus = expected.keys() - found.keys(), found.keys() - expected.keys()
    if missing or surplus:
        key, verb = (min(missing), "lacks") if missing else (min(surplus), "also has")
        raise UsageError(
            f"{path} is of another model{named}: of the {len(expected)} tensors expected it has "
            f"{len(expected) - len(missing)}, and it {verb} {key}; {advice}"
        )
    differing = [key for key in expected if expected[key].shape != found[key].shape]
    if not differing:
        return
    first = differing[0]
    wanted, given = expected[first].shape, found[first].shape
    # Another number of classes changes only the leading dimension of the last layer's weight and bias.
    if set(differing) <= set(list(expected)[-2:]) and wanted[1:] == given[1:]:
        raise UsageError(f"{path} is for {counted(given[0], 'class', 'classes')}, but the data set has {wanted[0]}")
    raise UsageError(
        f"{path} is of another model{named}: {first} has shape {tuple(given)} instead of {tuple(wanted)}; {advice}"
    )
