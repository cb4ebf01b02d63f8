"""MosaicML Streaming, as its documentation recommends: MDS shards, StreamingDataset, torch's DataLoader.

The MDS shards hold the same bytes as ours. torchvision's decode_jpeg decodes them, which is faster than the Pillow of
its "jpeg" columns; torchvision's v2 transforms follow.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import streaming
from streaming.base.util import clean_stale_shared_memory
from torch.utils.data import DataLoader

from benchmarks.processes.dataloader import ENDLESS_LISTED, PREFETCH, batches_of, torch_pixels, transform
from benchmarks.processes.task import Batch, Peer, PeerTask, own_format, stored_bytes
from shards.common.versions import version


def peer(task: PeerTask) -> Peer:
    """Writes the MDS shards unless they exist."""
    shards = own_format(task, "streaming", lambda path: write(task, path))
    return Peer(
        lambda: batches(task, shards),
        {
            "mosaicml-streaming": version("mosaicml-streaming"),
            "shuffle_algo": "py1e",
            "prefetch_factor": PREFETCH,
            "dct": "accurate",
        },
        depth=PREFETCH * task.threads,
        stride=max(1, task.threads),
    )


def write(task: PeerTask, path: Path) -> None:
    """Writes the split as MDS shards."""
    split = task.open_split()
    with streaming.MDSWriter(out=str(path), columns={"image": "bytes", "label": "int"}) as out:
        for data, label in zip(stored_bytes(split), split.labels.tolist(), strict=True):
            out.write({"image": data.tobytes(), "label": label})


class _Images(streaming.StreamingDataset):  # type: ignore[misc]
    def __init__(self, task: PeerTask, shards: Path) -> None:
        super().__init__(
            local=str(shards),
            shuffle=True,
            shuffle_seed=task.batch.seed,
            batch_size=task.batch.batch_size,
            epoch_size=ENDLESS_LISTED,
        )
        self._stored = task.open_split().manifest.settings
        self._prepare = transform(task.batch, self._stored)

    def __getitem__(self, at: Any) -> Any:
        sample = super().__getitem__(at)
        return self._prepare(torch_pixels(sample["image"], self._stored)), sample["label"]


@contextlib.contextmanager
def batches(task: PeerTask, shards: Path) -> Iterator[Iterator[Batch]]:
    """Endless shuffled batches: an epoch repeats the data set so often that it never ends."""
    clean_stale_shared_memory()
    loader: DataLoader[Any] = DataLoader(
        _Images(task, shards),
        batch_size=task.batch.batch_size,
        num_workers=task.threads,
        drop_last=True,
        persistent_workers=task.threads > 0,
        prefetch_factor=PREFETCH if task.threads else None,
    )
    with batches_of(loader) as stream:
        del loader
        yield stream
