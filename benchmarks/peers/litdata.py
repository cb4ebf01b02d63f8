"""LitData, as its documentation recommends: JPEG samples in optimised chunks, decoded by its own serializer.

The chunks hold the same bytes as the shards. LitData decodes them with torchvision; torchvision's v2 transforms follow.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import litdata

from benchmarks.processes.dataloader import ENDLESS_LISTED, batches_of, loading_peer, transform, worker_options
from benchmarks.processes.task import Batch, Peer, PeerTask, own_format, stored_bytes
from shards.common.versions import version

CHUNK = "64MB"  # as in its documentation


def peer(task: PeerTask) -> Peer:
    """Writes the chunks unless they exist."""
    chunks = own_format(task, "litdata", lambda path: write(task, path))
    settings = {"litdata": version("litdata"), "chunk_bytes": CHUNK}
    return loading_peer(task, lambda: batches(task, chunks), settings)


class _Sample:
    def __init__(self, task: PeerTask) -> None:
        split = task.open_split()
        self._bytes, self._labels = stored_bytes(split), split.labels

    def __call__(self, row: int) -> dict[str, Any]:
        return {"image": litdata.Jpeg(bytes=self._bytes[row].tobytes()), "label": int(self._labels[row])}


def write(task: PeerTask, path: Path) -> None:
    """Writes the split as chunks."""
    rows = list(range(len(task.open_split())))
    litdata.optimize(fn=_Sample(task), inputs=rows, output_dir=str(path), chunk_bytes=CHUNK, num_workers=1)


class _Prepare:
    """The transform of a sample; an object, not a lambda, so that it can be sent to worker processes."""

    def __init__(self, task: PeerTask) -> None:
        self._transform = transform(task.batch, task.open_split().manifest.settings)

    def __call__(self, sample: Any, *_: Any, **__: Any) -> Any:
        return self._transform(sample["image"]), sample["label"]


def batches(task: PeerTask, chunks: Path) -> AbstractContextManager[Iterator[Batch]]:
    """Endless shuffled batches: an epoch repeats the data set so often that it never ends."""
    dataset = litdata.StreamingDataset(
        str(chunks),
        shuffle=True,
        drop_last=True,
        seed=task.batch.seed,
        subsample=float(-(-ENDLESS_LISTED // len(task.open_split()))),
        transform=_Prepare(task),
    )
    return batches_of(
        lambda: litdata.StreamingDataLoader(
            dataset, batch_size=task.batch.batch_size, drop_last=True, **worker_options(task.threads)
        )
    )
