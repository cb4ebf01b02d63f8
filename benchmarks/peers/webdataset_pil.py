"""The shards themselves, read by webdataset and decoded by Pillow, as its documentation has it for training.

Shards are drawn with replacement (`resampled=True`) and samples shuffled in a buffer; batches are made in the worker
processes.
"""

import contextlib
from collections.abc import Iterator

import webdataset

from benchmarks.naive import PREFETCH, Batch
from benchmarks.peers.job import Job, Peer
from benchmarks.peers.workers import ending, pil_image, pil_transform
from shards.layout import extension
from shards.versions import version

SHUFFLE_BUFFER = 1000  # samples; what its documentation uses


def peer(job: Job) -> Peer:
    return Peer(
        lambda: batches(job),
        {
            "webdataset": version("webdataset"),
            "shuffle_buffer": SHUFFLE_BUFFER,
            "prefetch_factor": PREFETCH,
            "dct": "accurate",
        },
        depth=PREFETCH * job.threads,
        stride=max(1, job.threads),
    )


@contextlib.contextmanager
def batches(job: Job) -> Iterator[Iterator[Batch]]:
    """Batches without end."""
    split = job.opened()
    stored = split.manifest.settings
    prepare = pil_transform(job.recipe, stored)
    dataset = (
        webdataset.WebDataset(
            [str(path) for path in split.shard_paths], resampled=True, shardshuffle=False, seed=job.recipe.seed
        )
        .shuffle(SHUFFLE_BUFFER)
        .to_tuple(extension(stored.encoding), "cls")
        .map_tuple(lambda data: prepare(pil_image(data)), int)
        .batched(job.recipe.batch_size, partial=False)
    )
    loader = webdataset.WebLoader(
        dataset,
        batch_size=None,
        num_workers=job.threads,
        prefetch_factor=PREFETCH if job.threads else None,
        persistent_workers=job.threads > 0,
    )
    with ending(_typed(loader)) as stream:
        yield stream


class _typed:
    """Labels as a tensor: webdataset stacks numbers to an array."""

    def __init__(self, loader: object) -> None:
        self._loader = loader

    def __iter__(self) -> Iterator[Batch]:
        import torch

        for images, labels in self._loader:  # type: ignore[attr-defined]
            yield images, torch.as_tensor(labels)
