"""An image folder of the stored images, decoded by torchvision's decode_jpeg to tensors, with its v2 transforms."""

from typing import Any

import torch
from torchvision.datasets import DatasetFolder
from torchvision.io import read_file

from benchmarks.peers.folder_pil import write
from benchmarks.peers.naive import PREFETCH
from benchmarks.peers.workers import random_batches, torch_pixels, transform
from benchmarks.processes.job import Job, Peer
from shards.format.layout import extension
from shards.format.manifest import Settings


def peer(job: Job) -> Peer:
    stored = job.opened().manifest.settings
    images = DatasetFolder(
        str(write(job)), Read(stored), (extension(stored.encoding),), transform=transform(job.recipe, stored)
    )
    return Peer(
        lambda: random_batches(images, job.recipe, job.threads),
        {"prefetch_factor": PREFETCH, "dct": "accurate"},
        depth=PREFETCH * job.threads,
        stride=max(1, job.threads),
    )


class Read:
    """Reads and decodes a file; an object, so that worker processes may be spawned."""

    def __init__(self, stored: Settings) -> None:
        self._stored = stored

    def __call__(self, path: str) -> Any:
        data: torch.Tensor = read_file(path)
        return torch_pixels(data if self._stored.encoding == "jpeg" else data.numpy().tobytes(), self._stored)
