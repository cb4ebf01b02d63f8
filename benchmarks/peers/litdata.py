"""LitData, written as its documentation has it: JPEG samples in optimised chunks, decoded by its own serializer.

The chunks hold the very bytes of the shards. LitData decodes them with torchvision; torchvision's v2 transforms follow.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import litdata

from benchmarks.peers.naive import ENDLESS_EPOCH, PREFETCH, Batch
from benchmarks.peers.workers import ending, transform
from benchmarks.processes.job import Job, Peer, own_format, stored_bytes
from shards.common.versions import version

CHUNK = "64MB"  # what its documentation uses


def peer(job: Job) -> Peer:
    """Writes the chunks, where there are none yet."""
    chunks = own_format(job, "litdata", lambda path: write(job, path))
    return Peer(
        lambda: batches(job, chunks),
        {"litdata": version("litdata"), "chunk_bytes": CHUNK, "prefetch_factor": PREFETCH, "dct": "accurate"},
        depth=PREFETCH * job.threads,
        stride=max(1, job.threads),
    )


class _Sample:
    def __init__(self, job: Job) -> None:
        split = job.opened()
        self._bytes, self._labels = stored_bytes(split), split.labels

    def __call__(self, row: int) -> dict[str, Any]:
        return {"image": litdata.Jpeg(bytes=self._bytes[row].tobytes()), "label": int(self._labels[row])}


def write(job: Job, path: Path) -> None:
    """Writes the split as chunks."""
    rows = list(range(len(job.opened())))
    litdata.optimize(fn=_Sample(job), inputs=rows, output_dir=str(path), chunk_bytes=CHUNK, num_workers=1)


class _Prepare:
    """An object, not a lambda: it is sent to worker processes."""

    def __init__(self, job: Job) -> None:
        self._transform = transform(job.recipe, job.opened().manifest.settings)

    def __call__(self, sample: Any, *_: Any, **__: Any) -> Any:
        return self._transform(sample["image"]), sample["label"]


@contextlib.contextmanager
def batches(job: Job, chunks: Path) -> Iterator[Iterator[Batch]]:
    """Shuffled batches; an epoch goes round the data set so often that its end is never met."""
    dataset = litdata.StreamingDataset(
        str(chunks),
        shuffle=True,
        drop_last=True,
        seed=job.recipe.seed,
        subsample=float(-(-ENDLESS_EPOCH // len(job.opened()))),
        transform=_Prepare(job),
    )
    loader = litdata.StreamingDataLoader(
        dataset,
        batch_size=job.recipe.batch_size,
        num_workers=job.threads,
        drop_last=True,
        persistent_workers=job.threads > 0,
        prefetch_factor=PREFETCH if job.threads else None,
    )
    with ending(loader) as stream:
        del loader
        yield stream
