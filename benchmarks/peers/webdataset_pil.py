"""webdataset over the shards themselves, decoded by Pillow, as its documentation recommends for training.

Shards are drawn with replacement (`resampled=True`), samples are shuffled in a buffer, and worker processes make the
batches.
"""

import contextlib
from collections.abc import Iterator

import webdataset
from torch.utils.data import default_collate

from benchmarks.processes.dataloader import PREFETCH, batches_of, pil_image, pil_transform
from benchmarks.processes.task import Batch, Peer, PeerTask
from shards.common.versions import version
from shards.format.layout import extension

SHUFFLE_BUFFER = 1000  # samples, as in its documentation


def peer(task: PeerTask) -> Peer:
    return Peer(
        lambda: batches(task),
        {
            "webdataset": version("webdataset"),
            "shuffle_buffer": SHUFFLE_BUFFER,
            "prefetch_factor": PREFETCH,
            "dct": "accurate",
        },
        depth=PREFETCH * task.threads,
        stride=max(1, task.threads),
    )


@contextlib.contextmanager
def batches(task: PeerTask) -> Iterator[Iterator[Batch]]:
    """Endless batches."""
    split = task.open_split()
    stored = split.manifest.settings
    prepare = pil_transform(task.batch, stored)
    dataset = (
        webdataset.WebDataset(
            [str(path) for path in split.shard_paths], resampled=True, shardshuffle=False, seed=task.batch.seed
        )
        .shuffle(SHUFFLE_BUFFER)
        .to_tuple(extension(stored.encoding), "cls")
        .map_tuple(lambda data: prepare(pil_image(data)), int)
        # torch's collate puts a batch into shared memory at once; webdataset's own would be copied there.
        .batched(task.batch.batch_size, collation_fn=default_collate, partial=False)
    )
    loader = webdataset.WebLoader(
        dataset,
        batch_size=None,
        num_workers=task.threads,
        prefetch_factor=PREFETCH if task.threads else None,
        persistent_workers=task.threads > 0,
    )
    with batches_of(loader) as stream:
        del loader
        yield stream
