"""webdataset over the shards themselves, decoded by Pillow, as its documentation recommends for training.

Shards are drawn with replacement (`resampled=True`), samples are shuffled in a buffer, and worker processes make the
batches. Shards behind a URL go to its own cache.
"""

from typing import Any

import webdataset
from torch.utils.data import default_collate

from benchmarks.processes.dataloader import loading_peer, pil_image, pil_transform, worker_options
from benchmarks.processes.task import Peer, PeerTask
from shards.common.versions import version
from shards.format.layout import extension

SHUFFLE_BUFFER = 1000  # samples, as in its documentation


def peer(task: PeerTask) -> Peer:
    settings = {"webdataset": version("webdataset"), "shuffle_buffer": SHUFFLE_BUFFER}
    return loading_peer(task, lambda: loader(task), settings)


def loader(task: PeerTask) -> Any:
    """Endless batches."""
    split = task.open_split()
    stored = split.manifest.settings
    prepare = pil_transform(task.batch, stored)
    dataset = (
        webdataset.WebDataset(
            [split.shard_place(number) for number in range(len(split.info.shards))],
            resampled=True,
            shardshuffle=False,
            seed=task.batch.seed,
            cache_dir=str(task.cache) if task.reads == "http" else None,
        )
        .shuffle(SHUFFLE_BUFFER)
        .to_tuple(extension(stored.encoding), "cls")
        .map_tuple(lambda data: prepare(pil_image(data)), int)
        # torch's collate puts a batch into shared memory at once; webdataset's own would be copied there.
        .batched(task.batch.batch_size, collation_fn=default_collate, partial=False)
    )
    return webdataset.WebLoader(dataset, batch_size=None, **worker_options(task.threads))
