"""The path that most training scripts take: Pillow decodes the original images in DataLoader workers.

A torch Dataset over the Hugging Face data set that the shards were made from, torchvision's transforms on PIL images,
and a DataLoader whose worker processes stay alive. Nothing in it is slower than its users write it.
"""

from typing import Any, Protocol

import torch
from torch.utils.data import Dataset
from torchvision import transforms

from benchmarks.measure.settings import BatchSpec
from benchmarks.processes.dataloader import loading_peer, random_loader
from benchmarks.processes.task import Peer, PeerTask
from shards.common.errors import UsageError
from shards.dataset import Split
from shards.decode import MEAN, STD


class Rows(Protocol):
    """What a `datasets.Dataset` with image and label columns offers."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Any: ...


def peer(task: PeerTask) -> Peer:
    """Raises UsageError if the shards were made from another data set."""
    rows = open_rows(task.open_split(), task.source, task.image_column, task.label_column)
    images = PilImages(rows, task.batch)
    return loading_peer(task, lambda: random_loader(images, task.batch, task.threads), {"reads": "originals"})


def open_rows(split: Split, source: str, image_column: str, label_column: str) -> Rows:
    """The rows of SOURCE from which `split` was made. Raises UsageError if it was made from others."""
    from preprocess.sources import hf_dataset

    rows = hf_dataset(source, split.name, image_column, label_column)
    names, taken = tuple(rows.features["label"].names), len(split) + split.info.rejects
    if names != split.class_names or len(rows) != taken:
        raise UsageError(
            f"{split.root} was made from another data set than {source}: {split.name} has {taken} and {len(rows)} "
            f"images, {len(split.class_names)} classes ({split.class_names[0]}, ...) and {len(names)} ({names[0]}, ...)"
        )
    return rows  # type: ignore[no-any-return]


class PilImages(Dataset[tuple[torch.Tensor, int]]):
    """(3, size, size) tensors and labels of rows whose "image" decodes to a PIL image."""

    def __init__(self, rows: Rows, batch: BatchSpec) -> None:
        self.rows = rows
        steps: list[Any] = [transforms.Resize(batch.resize), transforms.RandomCrop(batch.size)]
        if batch.crop == "rrc":
            steps = [transforms.RandomResizedCrop(batch.size)]
        elif batch.crop == "center":
            steps = [transforms.Resize(batch.resize), transforms.CenterCrop(batch.size)]
        if batch.crop != "center":
            steps.append(transforms.RandomHorizontalFlip())
        if batch.dtype == "float32":
            steps += [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
        else:
            steps += [transforms.PILToTensor()]
        self.transform = transforms.Compose(steps)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        row = self.rows[index]
        return self.transform(row["image"].convert("RGB")), row["label"]
