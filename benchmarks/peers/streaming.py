"""MosaicML Streaming, written as its documentation has it: MDS shards, StreamingDataset, torch's DataLoader.

The shards hold the very bytes of ours. They are decoded by torchvision's decode_jpeg, which is faster than the
Pillow of its "jpeg" columns; torchvision's v2 transforms follow.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import streaming
from streaming.base.util import clean_stale_shared_memory
from torch.utils.data import DataLoader

from benchmarks.peers.naive import ENDLESS_EPOCH, PREFETCH, Batch
from benchmarks.peers.workers import ending, torch_pixels, transform
from benchmarks.processes.job import Job, Peer, own_format, stored_bytes
from shards.common.versions import version


def peer(job: Job) -> Peer:
    """Writes the MDS shards, where there are none yet."""
    shards = own_format(job, "streaming", lambda path: write(job, path))
    return Peer(
        lambda: batches(job, shards),
        {
            "mosaicml-streaming": version("mosaicml-streaming"),
            "shuffle_algo": "py1e",
            "prefetch_factor": PREFETCH,
            "dct": "accurate",
        },
        depth=PREFETCH * job.threads,
        stride=max(1, job.threads),
    )


def write(job: Job, path: Path) -> None:
    """Writes the split as MDS shards."""
    split = job.opened()
    with streaming.MDSWriter(out=str(path), columns={"image": "bytes", "label": "int"}) as out:
        for data, label in zip(stored_bytes(split), split.labels.tolist(), strict=True):
            out.write({"image": data.tobytes(), "label": label})


class _Images(streaming.StreamingDataset):  # type: ignore[misc]
    def __init__(self, job: Job, shards: Path) -> None:
        super().__init__(
            local=str(shards),
            shuffle=True,
            shuffle_seed=job.recipe.seed,
            batch_size=job.recipe.batch_size,
            epoch_size=ENDLESS_EPOCH,
        )
        self._stored = job.opened().manifest.settings
        self._prepare = transform(job.recipe, self._stored)

    def __getitem__(self, at: Any) -> Any:
        sample = super().__getitem__(at)
        return self._prepare(torch_pixels(sample["image"], self._stored)), sample["label"]


@contextlib.contextmanager
def batches(job: Job, shards: Path) -> Iterator[Iterator[Batch]]:
    """Shuffled batches; an epoch goes round the data set so often that its end is never met."""
    clean_stale_shared_memory()
    loader: DataLoader[Any] = DataLoader(
        _Images(job, shards),
        batch_size=job.recipe.batch_size,
        num_workers=job.threads,
        drop_last=True,
        persistent_workers=job.threads > 0,
        prefetch_factor=PREFETCH if job.threads else None,
    )
    with ending(loader) as stream:
        del loader
        yield stream
