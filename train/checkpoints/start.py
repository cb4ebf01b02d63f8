"""Weights that training begins with (`--pretrained`, `--init`), and how their images are prepared.

The main rank alone reads or downloads them, so that other machines need neither the file nor a network.
"""

import dataclasses
import sys

import torch
from torch import nn
from tqdm import tqdm

from model.networks import fixed_side
from model.published import published, wanted
from model.start import Start, fit, read_start
from model.weights import About
from shards.common.errors import ShardfeedError, UsageError
from shards.dataset import Split
from shards.dataset.sizes import too_small
from train.config import Config
from train.options import Pixels
from train.ranks.distributed import World, try_on_main


def begin_with(network: nn.Module, config: Config, split: Split, world: World) -> Config:
    """Loads what `config` says to begin with into `network`; returns `config` with the images that the weights want.

    Raises UsageError for weights of another network, and for sizes that do not fit; ShardfeedError where the weights
    cannot be had.
    """
    if fixed_side(network) is not None and not config.evaluate:
        _refuse_sizes(config)
    if not (config.start.pretrained or config.start.init):
        return _with_filter(config)
    if config.start.pretrained and config.blur_pool:
        raise UsageError("published weights are of networks without blur pooling: add --no-blur-pool to --pretrained")
    own = fixed_side(network)
    if config.start.pretrained and own not in (None, config.size):
        raise UsageError(f"the published weights of {config.model} take images of {own} pixels: give --size {own}")
    start = try_on_main(lambda: _read(config), (ShardfeedError, OSError), world)
    lines = fit(network, start, split.class_names, freeze=config.start.freeze)
    if world.is_main:
        for line in lines:
            tqdm.write(line, file=sys.stderr)
    return _with_filter(config) if start.about is None else as_wanted(config, start.about, split)


def _with_filter(config: Config) -> Config:
    """`config` with the name of the filter that resizes, as checkpoints and results have it."""
    return dataclasses.replace(config, pixels=config.pixels.resolved())


def _read(config: Config) -> Start:
    with torch.random.fork_rng(devices=[]):  # the network that timm builds for its weights draws numbers
        if config.start.init is None:
            return published(config.model)
        start, blurred = read_start(config.start.init), " with --blur-pool"
    if start.about is None:  # what is published under that name is likelier than the loader's defaults
        return dataclasses.replace(start, about=wanted(config.model))
    about = start.about
    if (about.model, about.blur_pool) != (config.model, config.blur_pool):
        raise UsageError(
            f"{start.title} is of {about.model}{blurred if about.blur_pool else ''}: give --model {about.model}"
            f"{' --blur-pool' if about.blur_pool else ' --no-blur-pool' if config.blur_pool else ''}"
        )
    return start


def as_wanted(config: Config, about: About, split: Split) -> Config:
    """`config` with the pixels that weights want and, unless it says them, their filter and shorter side.

    At the weights' own size that is their own; at another one it is in proportion, and at most what is stored. Raises
    UsageError where the data set stores smaller images than the weights' own size takes.
    """
    sizes, stored = config.sizes, split.manifest.settings.short_side
    size, resize = sizes.val_size or config.size, sizes.val_resize
    if resize is None and size == about.size:
        resize = about.resize
        if stored is not None and stored < resize:
            raise UsageError(
                f"{about.model} is evaluated on {too_small(split, resize)}, and --val-resize {max(size, stored)} "
                "evaluates otherwise"
            )
    elif resize is None:
        resize = max(size, round(size * about.resize / about.size))
        resize = resize if stored is None else min(resize, stored)
    pixels = Pixels(about.mean, about.std, config.pixels.interpolation).resolved(about.interpolation)
    return dataclasses.replace(config, pixels=pixels, sizes=dataclasses.replace(sizes, val_resize=resize))


def _refuse_sizes(config: Config) -> None:
    size, sizes = config.size, config.sizes
    if {sizes.val_size or size, sizes.start_size or size} != {size}:
        raise UsageError(f"{config.model} takes images of one size: leave --val-size and --start-size at --size {size}")
