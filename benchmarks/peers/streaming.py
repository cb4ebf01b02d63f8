"""MosaicML Streaming, as its documentation recommends: MDS shards, StreamingDataset, torch's DataLoader.

The MDS shards hold the same bytes as ours. torchvision's decode_jpeg decodes them, which is faster than the Pillow of
its "jpeg" columns; torchvision's v2 transforms follow.
"""

from pathlib import Path
from typing import Any

import streaming
from streaming.base.util import clean_stale_shared_memory
from torch.utils.data import DataLoader

from benchmarks.processes.dataloader import ENDLESS_LISTED, loading_peer, torch_pixels, transform, worker_options
from benchmarks.processes.task import Peer, PeerTask, own_format, stored_bytes
from shards.common.versions import version


def peer(task: PeerTask) -> Peer:
    """Writes the MDS shards unless they exist."""
    shards = own_format(task, "streaming", lambda path: write(task, path))
    settings = {"mosaicml-streaming": version("mosaicml-streaming"), "shuffle_algo": "py1e"}
    return loading_peer(task, lambda: loader(task, shards), settings)


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


def loader(task: PeerTask, shards: Path) -> "DataLoader[Any]":
    """Endless shuffled batches: an epoch repeats the data set so often that it never ends."""
    clean_stale_shared_memory()
    images, options = _Images(task, shards), worker_options(task.threads)
    return DataLoader(images, task.batch.batch_size, drop_last=True, **options)
