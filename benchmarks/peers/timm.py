"""timm's loader, as its documentation recommends: an ImageDataset over an image folder, and `create_loader`.

Its prefetcher is off, since that is for GPUs; of its augmentations RandomResizedCrop and the flip are on. Pillow
decodes in worker processes. Its RandomCrop is of another kind (the image is padded), and it normalises what it makes.
"""

from typing import Any

import torch
from timm import data

from benchmarks.peers.image_folder import write
from benchmarks.processes.dataloader import ENDLESS_LISTED, loading_peer
from benchmarks.processes.task import Peer, PeerTask
from shards.common.versions import version
from shards.decode import MEAN, STD


def peer(task: PeerTask) -> Peer:
    """Writes the folder, if that was not done yet."""
    folder = str(write(task))
    return loading_peer(task, lambda: loader(task, folder), {"timm": version("timm")})


def loader(task: PeerTask, folder: str) -> Any:
    """Endless shuffled batches: an epoch lists the files so often that it never ends."""
    images: Any = data.ImageDataset(folder)  # type: ignore[attr-defined, no-untyped-call]
    images.reader.samples *= -(-ENDLESS_LISTED // len(images))
    return data.create_loader(  # type: ignore[attr-defined]
        images,
        task.batch.size,
        task.batch.batch_size,
        is_training=True,
        color_jitter=0.0,
        mean=MEAN,
        std=STD,
        num_workers=task.threads,
        persistent_workers=task.threads > 0,
        device=torch.device("cpu"),
        use_prefetcher=False,
    )
