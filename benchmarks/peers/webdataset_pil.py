"""The shards themselves, read by webdataset and decoded by Pillow, as its documentation has it for training.

Shards are drawn with replacement (`resampled=True`) and samples shuffled in a buffer; batches are made in the worker
processes.
"""

import contextlib
from collections.abc import Iterator

import webdataset
from torch.utils.data import default_collate

from benchmarks.peers.naive import PREFETCH, Batch
from benchmarks.peers.workers import ending, pil_image, pil_transform
from benchmarks.processes.job import Job, Peer
from shards.common.versions import version
from shards.format.layout import extension

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
        # torch's way puts a batch into shared memory at once; webdataset's own would be copied there.
        .batched(job.recipe.batch_size, collation_fn=default_collate, partial=False)
    )
    loader = webdataset.WebLoader(
        dataset,
        batch_size=None,
        num_workers=job.threads,
        prefetch_factor=PREFETCH if job.threads else None,
        persistent_workers=job.threads > 0,
    )
    with ending(loader) as stream:
        del loader
        yield stream
