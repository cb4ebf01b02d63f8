"""The path that most training scripts take, to compare with: pictures decoded by Pillow in DataLoader workers.

A torch Dataset over the Hugging Face dataset, torchvision's transforms on PIL images, and a
DataLoader with worker processes that stay alive. Nothing in it is slower than its users write it.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torchvision import transforms

from shards.decode import MEAN, STD

Batch = tuple[torch.Tensor, torch.Tensor]
DType = Literal["float32", "uint8"]
Crop = Literal["random", "rrc"]

PREFETCH = 2  # DataLoader's own default: batches a worker keeps ready
ENDLESS = 1 << 40  # samples in the one long epoch: no gap between epochs counts against a small data set
ENDLESS_EPOCH = 1 << 18  # the same, for systems that write down the order of an epoch beforehand


class Rows(Protocol):
    """What a `datasets.Dataset` with image and label columns offers."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Any: ...


@dataclass(frozen=True)
class Recipe:
    """What a batch is.

    resize: shorter side before the crop of "random"; size: side of the crop, both in pixels.
    crop: "random" (Resize, RandomCrop) or "rrc" (torchvision's RandomResizedCrop); both are flipped at random.
    dtype: "float32" normalised by ImageNet's mean and deviation, or "uint8" pixels.
    """

    batch_size: int = 64
    resize: int = 256
    size: int = 224
    dtype: DType = "float32"
    seed: int = 0
    crop: Crop = "random"


class Pictures(Dataset[tuple[torch.Tensor, int]]):
    """(3, size, size) tensors and labels of rows whose "image" decodes to a PIL image."""

    def __init__(self, rows: Rows, recipe: Recipe) -> None:
        self.rows = rows
        steps: list[Any] = [transforms.Resize(recipe.resize), transforms.RandomCrop(recipe.size)]
        if recipe.crop == "rrc":
            steps = [transforms.RandomResizedCrop(recipe.size)]
        steps.append(transforms.RandomHorizontalFlip())
        if recipe.dtype == "float32":
            steps += [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
        else:
            steps += [transforms.PILToTensor()]
        self.transform = transforms.Compose(steps)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        row = self.rows[index]
        return self.transform(row["image"].convert("RGB")), row["label"]


@contextlib.contextmanager
def batches(rows: Rows, recipe: Recipe, workers: int) -> Iterator[Iterator[Batch]]:
    """Shuffled batches (B, 3, size, size) and labels (B,) int64 without end, made by `workers` processes (0: none).

    The processes are gone when the block is left.
    """
    generator = torch.Generator().manual_seed(recipe.seed)
    pictures = Pictures(rows, recipe)
    loader = DataLoader(
        pictures,
        batch_size=recipe.batch_size,
        sampler=RandomSampler(pictures, num_samples=ENDLESS, generator=generator),
        num_workers=workers,
        persistent_workers=workers > 0,
        drop_last=True,
    )
    stream = _stream(loader)
    del loader
    try:
        yield stream
    finally:
        stream.close()  # drops the last reference to the loader, which ends its workers


def _stream(loader: "DataLoader[Any]") -> Any:
    yield from loader
