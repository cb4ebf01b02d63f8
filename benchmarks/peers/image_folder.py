"""An image folder of the stored images, as torchvision's ImageFolder reads it, and its v2 transforms.

`decoder` "pil" is ImageFolder itself; "torchvision" decodes with decode_jpeg to tensors; "torchcodec" with torchcodec's
decode_jpeg, to which a worker hands the files of a batch in one list.
"""

import functools
from pathlib import Path
from typing import Any

import torch
from torchvision.datasets import DatasetFolder, ImageFolder
from torchvision.io import read_file

from benchmarks.processes.dataloader import loading_peer, pil_transform, random_loader, torch_pixels, transform
from benchmarks.processes.task import Peer, PeerTask, own_format, stored_bytes
from shards.common.versions import version
from shards.format.layout import extension
from shards.format.manifest import Settings


def peer(task: PeerTask) -> Peer:
    """Writes the folder, if that was not done yet."""
    stored, folder = task.open_split().manifest.settings, str(write(task))
    if task.options["decoder"] == "pil":
        images: DatasetFolder = ImageFolder(folder, transform=pil_transform(task.batch, stored))
    elif task.options["decoder"] == "torchcodec":
        images = _Batches(folder, lambda path: path, ("jpg",), transform=transform(task.batch, stored))
    else:
        suffix = extension(stored.encoding)
        images = DatasetFolder(
            folder, functools.partial(_read, stored), (suffix,), transform=transform(task.batch, stored)
        )
    own = {name: version(name) for name in ("torchcodec",) if name == task.options["decoder"]}
    return loading_peer(task, lambda: random_loader(images, task.batch, task.threads), own)


class _Batches(DatasetFolder):  # type: ignore[misc]
    def __getitems__(self, rows: list[int]) -> list[tuple[Any, int]]:
        """The samples of a batch: torch's DataLoader calls this where a data set has it."""
        from torchcodec.decoders import decode_jpeg

        paths, labels = zip(*(self.samples[row] for row in rows), strict=True)
        pixels = decode_jpeg(list(paths), mode="RGB")
        return [(self.transform(each), label) for each, label in zip(pixels, labels, strict=True)]


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
