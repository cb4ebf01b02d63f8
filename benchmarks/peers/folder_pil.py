"""An image folder of the stored images, as torchvision's ImageFolder reads it: Pillow decodes, v2 transforms."""

from pathlib import Path

from torchvision.datasets import ImageFolder

from benchmarks.peers.naive import PREFETCH
from benchmarks.peers.workers import pil_transform, random_batches
from benchmarks.processes.job import Job, Peer, own_format, stored_bytes
from shards.format.layout import extension


def peer(job: Job) -> Peer:
    folder = write(job)
    images = ImageFolder(str(folder), transform=pil_transform(job.recipe, job.opened().manifest.settings))
    return Peer(
        lambda: random_batches(images, job.recipe, job.threads),
        {"prefetch_factor": PREFETCH, "dct": "accurate"},
        depth=PREFETCH * job.threads,
        stride=max(1, job.threads),
    )


def write(job: Job) -> Path:
    """Writes one file an image, in one directory a class, where that was not done yet."""
    split = job.opened()
    suffix = extension(split.manifest.settings.encoding)

    def copy(root: Path) -> None:
        for row, data in enumerate(stored_bytes(split)):
            path = root / f"{split.labels[row]:05d}" / f"{row:08d}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            data.tofile(path)

    return own_format(job, "folder", copy)
