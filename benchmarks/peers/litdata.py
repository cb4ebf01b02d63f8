"""LitData, as its documentation recommends: JPEG samples in optimised chunks, decoded by its own serializer.

The chunks hold the same bytes as the shards. LitData decodes them with torchvision; torchvision's v2 transforms follow.
"""

import functools
from pathlib import Path
from typing import Any

import litdata

from benchmarks.processes.dataloader import ENDLESS_LISTED, loading_peer, transform, worker_options
from benchmarks.processes.task import Peer, PeerTask, own_format, stored_bytes
from shards.common.versions import version

CHUNK = "64MB"  # as in its documentation


def peer(task: PeerTask) -> Peer:
    """Writes the chunks unless they exist."""
    chunks = own_format(task, "litdata", lambda path: write(task, path))
    settings = {"litdata": version("litdata"), "chunk_bytes": CHUNK}
    return loading_peer(task, lambda: loader(task, chunks), settings)


def write(task: PeerTask, path: Path) -> None:
    """Writes the split as chunks."""
    split = task.open_split()
    sample = functools.partial(_sample, stored_bytes(split), split.labels)
    rows = list(range(len(split)))
    litdata.optimize(fn=sample, inputs=rows, output_dir=str(path), chunk_bytes=CHUNK, num_workers=1)


def _sample(data: Any, labels: Any, row: int) -> dict[str, Any]:
    return {"image": litdata.Jpeg(bytes=data[row].tobytes()), "label": int(labels[row])}


def loader(task: PeerTask, chunks: Path) -> Any:
    """Endless shuffled batches: an epoch repeats the data set so often that it never ends."""
    split = task.open_split()
    dataset = litdata.StreamingDataset(
        str(chunks),
        shuffle=True,
        drop_last=True,
        seed=task.batch.seed,
        subsample=float(-(-ENDLESS_LISTED // len(split))),
        transform=functools.partial(_prepared, transform(task.batch, split.manifest.settings)),
    )
    return litdata.StreamingDataLoader(
        dataset, batch_size=task.batch.batch_size, drop_last=True, **worker_options(task.threads)
    )


def _prepared(prepare: Any, sample: Any, *_: Any, **__: Any) -> Any:
    return prepare(sample["image"]), sample["label"]
