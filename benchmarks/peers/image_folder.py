"""An image folder of the stored images, as torchvision's ImageFolder reads it, and its v2 transforms.

`decoder` "pil" is ImageFolder itself; "torchvision" decodes with decode_jpeg to tensors.
"""

import functools
from pathlib import Path
from typing import Any

import torch
from torchvision.datasets import DatasetFolder, ImageFolder
from torchvision.io import read_file

from benchmarks.processes.dataloader import loading_peer, pil_transform, random_loader, torch_pixels, transform
from benchmarks.processes.task import Peer, PeerTask, own_format, stored_bytes
from shards.format.layout import extension
from shards.format.manifest import Settings


def peer(task: PeerTask) -> Peer:
    """Writes the folder, if that was not done yet."""
    stored, folder = task.open_split().manifest.settings, str(write(task))
    if task.options["decoder"] == "pil":
        images: DatasetFolder = ImageFolder(folder, transform=pil_transform(task.batch, stored))
    else:
        suffix = extension(stored.encoding)
        images = DatasetFolder(
            folder, functools.partial(_read, stored), (suffix,), transform=transform(task.batch, stored)
        )
    return loading_peer(task, lambda: random_loader(images, task.batch, task.threads), {})


def write(task: PeerTask) -> Path:
    """Writes one file per image, in one directory per class."""
    split = task.open_split()
    suffix = extension(split.manifest.settings.encoding)

    def copy(root: Path) -> None:
        for row, data in enumerate(stored_bytes(split)):
            path = root / f"{split.labels[row]:05d}" / f"{row:08d}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            data.tofile(path)

    return own_format(task, "folder", copy)


def _read(stored: Settings, path: str) -> Any:
    data: torch.Tensor = read_file(path)
    return torch_pixels(data if stored.encoding == "jpeg" else data.numpy().tobytes(), stored)
