"""The same training with batches of this project's loader, and with those of a DataLoader over PIL images."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from benchmarks.measure.settings import BatchSpec
from benchmarks.peers.naive import PilImages, Rows
from shards import Split
from shards.dataset.sizes import shorter_side
from train.data import Batches, held_out_loader, training_loader
from train.engine import train_epoch
from train.report.accuracy import Accuracy, evaluate
from train.report.metrics import Recorder
from train.run import Setup, begin


@dataclass(frozen=True)
class OnDevice:
    """Batches of a DataLoader, moved to the device."""

    loader: "DataLoader[Any]"
    device: torch.device

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in self.loader:
            yield images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)


def trained(network: nn.Module, setup: Setup, held_out: Split, batches: Batches, held_out_batches: Batches) -> Accuracy:
    """The accuracy after training on `batches`, as `train` does it, without files and checkpoints."""
    run = begin(network, setup, micro_batches=len(batches))
    for epoch in range(1, setup.config.epochs + 1):
        train_epoch(run, batches, Recorder(None, {}), epoch)
    run.learner.settle(setup.world)
    accuracy, _ = evaluate(run.learner.evaluated, held_out_batches, len(held_out), setup)
    return accuracy


@contextlib.contextmanager
def ours(split: Split, held_out: Split, setup: Setup) -> Iterator[tuple[Batches, Batches]]:
    """This project's loaders, of training and of evaluation."""
    with training_loader(split, setup) as batches, held_out_loader(held_out, setup) as held_out_batches:
        yield batches, held_out_batches


def usual(rows: Rows, held_out_rows: Rows, held_out: Split, setup: Setup, workers: int) -> tuple[Batches, Batches]:
    """DataLoaders of the same recipe; their processes live for one epoch."""
    config, world, micro_batch = setup.config, setup.world, setup.batch.micro_batch
    val_size = config.sizes.val_size or config.size
    resize = shorter_side(held_out, config.size, None, config.crop)
    val_resize = shorter_side(held_out, val_size, config.sizes.val_resize, "center")
    images = PilImages(rows, BatchSpec(micro_batch, resize, config.size, seed=config.seed, crop=config.crop))
    centred = PilImages(held_out_rows, BatchSpec(micro_batch, val_resize, val_size, crop="center"))
    training = DataLoader(
        images,
        micro_batch,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        generator=torch.Generator().manual_seed(config.seed),
    )
    validation = DataLoader(centred, micro_batch, num_workers=workers)
    return OnDevice(training, world.device), OnDevice(validation, world.device)
