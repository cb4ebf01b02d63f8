"""What the tests of training begin with: batches, the decisions of a run on one CPU, and lines of a log."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tests.helpers.datasets import coloured_jpeg, write_dataset
from train.config import Config
from train.optim.batch_split import split_batch
from train.ranks.distributed import World
from train.report.metrics import Recorder
from train.run import Setup

__all__ = ["SILENT", "FixedBatches", "coloured_jpeg", "read_lines", "setup_of", "tiny_network", "write_dataset"]

# Writes nothing.
SILENT = Recorder(None, {})


class FixedBatches:
    """A loader that gives the same random batches each epoch: `sizes` are the images of each."""

    def __init__(self, sizes: list[int], classes: int = 10, side: int = 16, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.batches = [
            (
                torch.randn(size, 3, side, side, generator=generator),
                torch.randint(classes, (size,), generator=generator),
            )
            for size in sizes
        ]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(self.batches)


def setup_of(config: Config, world: World = World(), dtype: torch.dtype = torch.float32) -> Setup:  # noqa: B008 - frozen
    """What is decided for `config`, without a network."""
    assert config.micro_batch != "auto"
    return Setup(config, world, dtype, split_batch(config.batch, config.micro_batch, world.size))


def tiny_network() -> nn.Sequential:
    """One linear layer, for images of 8 pixels in 10 classes; always with the same weights."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 10))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl."""
    return [json.loads(line) for line in path.read_text().splitlines()]
