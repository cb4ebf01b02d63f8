"""What training reads: the splits, the loader of each, and the size of the images of an epoch.

Importing this loads neither torch nor DALI, so that a wrong name of a split need not wait for them.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import shards
from shards.common.errors import UsageError
from shards.dataset import TRAINING, VALIDATION, open_dataset
from shards.sampling.order import Share
from train.config import Config

if TYPE_CHECKING:
    from torch import Tensor

    from train.run import Setup

# While images grow, their sizes are multiples of this, so that feature maps keep whole sizes through five halvings.
MULTIPLE = 32


class Batches(Protocol):
    """What the loops need of a loader: one epoch of (images (B, 3, H, W), labels (B,) int64), and its length."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[tuple["Tensor", "Tensor"]]: ...


def skipped(batches: Batches) -> int:
    """Damaged samples so far that a loader of ours has replaced or omitted; 0 for other batches."""
    count: int = getattr(batches, "skipped", 0)
    return count


def open_splits(config: Config) -> tuple["shards.Split", "shards.Split | None"]:
    """The training split and the held-out one, their indices read and compared with the manifest.

    Raises UsageError where one is missing, ShardfeedError for a damaged index.
    """
    training, held_out = training_split(config), held_out_split(config)
    for split in (training, held_out):
        if split is not None:
            _ = split.index
    return training, held_out


def training_split(config: Config) -> "shards.Split":
    """What to train on: the split `train`, or the part of it that the options choose. Of a whole one no index is read.

    Raises UsageError where there is no such split, and for a part that cannot be.
    """
    split, fraction = _of_training(config), config.validation.val_fraction
    return _classes(config, split if fraction is None else split.hold_out(fraction)[0])


def held_out_split(config: Config) -> "shards.Split | None":
    """What to validate on; None with --val-split none. Raises UsageError where the data set has no such split.

    No index is read yet.
    """
    name, fraction = config.validation.val_split, config.validation.val_fraction
    if name == "none":
        return None
    if fraction is not None:
        return _classes(config, _of_training(config).hold_out(fraction)[1])
    split = _named(config, name) if name != "auto" else _usual(config)
    if isinstance(config.samples.subset, Path):
        classes = _of_training(config).class_names
        split = split if classes == split.class_names else split.where(classes)
    return _classes(config, split)


def _usual(config: Config) -> "shards.Split":
    there = open_dataset(config.data, config.feeding.cache)
    for each in VALIDATION:
        if each in there:
            return there[each]
    raise UsageError(
        f"{config.data} has no split to validate on ({', '.join(VALIDATION)}), only {', '.join(there)}: "
        f"--val-fraction 0.05 holds out a part of {TRAINING}, --val-split NAME takes another split, and "
        "--val-split none trains without validation"
    )


def _of_training(config: Config) -> "shards.Split":
    """The split `train`, or what --subset takes of it."""
    split, subset = _named(config, TRAINING), config.samples.subset
    return split if subset is None else split.subset(subset)


def _classes(config: Config, split: "shards.Split") -> "shards.Split":
    """`split` under the classes of --class-map."""
    return split if config.samples.class_map is None else split.map_classes(config.samples.class_map)


def _named(config: Config, name: str) -> "shards.Split":
    there = open_dataset(config.data, config.feeding.cache)
    if name not in there:
        raise UsageError(f"{config.data} has no split {name}: it has {', '.join(there)}")
    return there[name]


def training_loader(split: "shards.Split", setup: "Setup") -> "shards.Loader":
    """This rank's micro-batches, in a new order each epoch. The last images that do not fill one on every rank are
    left out.
    """
    config = setup.config
    # Options that override a recipe's may leave values behind that are of no use, which a loader refuses.
    used: dict[str, Any] = {"window": config.feeding.window} if config.order == "blocks" else {}
    if config.crop == "rrc":
        used |= {"scale": config.feeding.scale, "ratio": config.feeding.ratio}
    return shards.Loader(
        split,
        batch_size=setup.batch.micro_batch,
        train=True,
        size=training_size(config, epoch=1),
        crop=config.crop,
        padding=config.feeding.pad,
        order=config.order,
        flip=config.feeding.flip,
        augment=config.feeding.augment,
        num_repeats=config.feeding.num_repeats,
        on_error=config.on_error,
        **used,
        **_common(setup),
    )


def held_out_loader(split: "shards.Split", setup: "Setup", ids: bool = False) -> "shards.Loader":
    """Every image exactly once over all ranks, centre-cropped; with --on-error skip, every whole one.

    A damaged image is never replaced here: a copy of another one would count twice. The batches are as large as
    training's micro-batches, of which the loader keeps several ready.
    """
    config = setup.config
    return shards.Loader(
        split,
        batch_size=setup.batch.micro_batch,
        train=False,
        size=config.sizes.val_size or config.size,
        resize=config.sizes.val_resize,
        on_error="omit" if config.on_error == "skip" else "raise",
        ids=ids,
        **_common(setup),
    )


def _common(setup: "Setup") -> dict[str, Any]:
    """The arguments that both loaders have in common."""
    config, world = setup.config, setup.world
    return {
        "seed": config.seed,
        "rank": world.rank,
        "world_size": world.size,
        "device": "gpu" if world.on_gpu else "cpu",
        "device_id": world.local_rank,
        # float16 halves the bytes of a batch, which autocast makes of fewer bits anyway. float16 has more of them than
        # bfloat16, and normalised pixels lie far inside its range.
        "dtype": "float16" if world.on_gpu and setup.dtype.itemsize == 2 else "float32",
        "threads": config.threads,
        "decode": config.feeding.decode,
        **dataclasses.asdict(config.pixels.resolved()),
    }


@dataclass(frozen=True)
class RestOfEpoch:
    """The first `micro_batches` of the next iteration of `loader`."""

    loader: "shards.Loader"
    micro_batches: int

    def __len__(self) -> int:
        return self.micro_batches

    def __iter__(self) -> Iterator[tuple["Tensor", "Tensor"]]:
        return iter(self.loader)


def rest_of_epoch(loader: "shards.Loader", setup: "Setup") -> RestOfEpoch:
    """The next iteration of the training loader: a whole epoch or, after resuming within one, the rest of it."""
    position, batch, world = loader.state_dict()["position"], setup.batch, setup.world
    share = Share(batch.micro_batch, world.rank, world.size, drop_last=True)
    micro_batches = share.steps(loader.samples, position)
    if setup.config.update.drop_last:
        micro_batches = batch.steps(micro_batches, drop_last=True) * batch.accumulate
    return RestOfEpoch(loader, micro_batches)


def set_training_size(loader: "shards.Loader", config: Config, epoch: int) -> None:
    """Sets the image size of an epoch that is about to begin, if the epoch before had another size."""
    size = training_size(config, epoch)
    if size != training_size(config, max(1, epoch - 1)):
        loader.set_size(size)


def training_size(config: Config, epoch: int) -> int:
    """Side in pixels of the training images of an epoch, counted from 1.

    Progressive resizing: `start_size` for the first `grow_from` epochs and the next one, then on a straight line to
    `size`, which the epoch after `grow_until` has. Networks do best at test when they were trained on smaller images
    than they are tested on (Touvron et al., arXiv:1906.06423), and small images make early steps cheap;
    ffcv-imagenet trains its ResNets so.
    """
    sizes, before = config.sizes, epoch - 1
    if sizes.start_size is None or before >= sizes.grow_until:
        return config.size
    if before <= sizes.grow_from:
        return sizes.start_size
    part = (before - sizes.grow_from) / (sizes.grow_until - sizes.grow_from)
    exact = sizes.start_size + part * (config.size - sizes.start_size)
    return min(config.size, max(sizes.start_size, round(exact / MULTIPLE) * MULTIPLE))
