"""What a finished conversion, or a finished index, says at its end: the commands that work with this very data set."""

import shlex
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from shards.common import terminal
from shards.dataset import TRAINING, VALIDATION, open_dataset
from shards.format.manifest import Manifest, SplitInfo
from shards.remote.object_store import ObjectStore
from shards.sampling.crops import SIZE
from shards.sampling.order import held_out_count

# What `train` computes at a time, and takes in a step, where nothing else is asked for.
MICRO_BATCH, BATCH = 16, 64
FRACTION = 0.05
PAD = 8  # pixels of an image's side for one of its border: 4 for images of 32, as is usual for CIFAR
# The line before them, which are the last for people.
WORK_NOW = "these lines work now:"
WEIGHTS = "Results/imagenet_trained_model.pth"


def next_steps(out: str | Path | ObjectStore, manifest: Manifest) -> list[str]:
    """Lines to copy: training and evaluation where there is a split to train on, and a loader.

    `out`: what names the data set to `open_dataset`; of a conversion into a store, the store.
    """
    split = TRAINING if TRAINING in manifest.splits else next(iter(manifest.splits))
    info, stored = manifest.splits[split], _stored_side(out, manifest, split)
    if not info.samples:
        return []
    size = SIZE if stored is None else min(SIZE, stored)
    # The usual crop would cut nothing off such images; with a border around them it does.
    border = size // PAD if split == TRAINING and _all_are(size, out, split) else 0
    lines = []
    batch = min(BATCH, info.samples)
    if split == TRAINING:
        options = [f"--size {size}"] if size < SIZE else []
        options += [f"--pad {border}"] if border else []
        held_out, left = _validation(manifest.splits, info)
        options += [*held_out, *([f"--batch-size {left}"] if left < MICRO_BATCH else [])]
        command = " ".join([terminal.started_as, "train --data", shlex.quote(str(out)), *options])
        lines += [command, f"{command} --evaluate {WEIGHTS}"]
    arguments = f"batch_size={batch}, train={split == TRAINING}" + (f", size={size}" if size < SIZE else "")
    arguments += f", padding={border}" if border else ""
    loader = f"Loader(open_dataset({str(out)!r})[{split!r}], {arguments})"
    return [*lines, f"from shards import Loader, open_dataset; loader = {loader}"]


def _validation(splits: Mapping[str, SplitInfo], training: SplitInfo) -> tuple[list[str], int]:
    """The options that say what to validate on, and how many samples are left to train on."""
    if any(splits[name].samples for name in VALIDATION if name in splits):
        first = next(name for name in VALIDATION if name in splits)
        return ([] if splits[first].samples else ["--val-split none"]), training.samples
    if training.samples < 2:
        return ["--val-split none"], training.samples
    return [f"--val-fraction {FRACTION}"], training.samples - held_out_count(training.samples, FRACTION)


def _all_are(size: int, out: str | Path | ObjectStore, split: str) -> bool:
    """Whether each stored image is `size` x `size` pixels; taken for no where the data set is behind a URL."""
    if isinstance(out, ObjectStore):
        return False
    index = open_dataset(out)[split].index
    return bool(np.all(index.width == size) and np.all(index.height == size))


def _stored_side(out: str | Path | ObjectStore, manifest: Manifest, split: str) -> int | None:
    """The shorter side of most stored images, in pixels; None where a data set behind a URL keeps original sizes."""
    if manifest.settings.short_side is not None:
        return manifest.settings.short_side
    if isinstance(out, ObjectStore):
        return None
    index = open_dataset(out)[split].index
    return int(np.median(np.minimum(index.width, index.height)))
