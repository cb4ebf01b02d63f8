"""This project's loader, with its defaults; the task's options are arguments of it."""

import contextlib
from collections.abc import Iterator

import torch

from benchmarks.measure.harness import nothing
from benchmarks.processes.task import Batch, Peer, PeerTask
from shards import Loader
from shards.feed.loop import Depths


def peer(task: PeerTask) -> Peer:
    """On a GPU, `sync` waits for the device before the clock is read."""
    on_gpu = task.options.get("device") == "gpu"
    stored = task.open_split().manifest.settings.encoding
    dct = "none (raw pixels)" if stored == "raw" else "fast" if task.options.get("fast_idct") else "accurate"
    return Peer(
        lambda: batches(task),
        {"order": "global", "resize": "none" if task.batch.crop == "random" else "antialiased"}
        | ({} if on_gpu else {"dct": dct})
        | dict(task.options),
        depth=Depths.decoding + Depths.ready,
        sync=torch.cuda.synchronize if on_gpu else nothing,
    )


@contextlib.contextmanager
def batches(task: PeerTask) -> Iterator[Iterator[Batch]]:
    """Endless shuffled batches."""
    batch = task.batch
    with Loader(
        task.open_split(),
        batch_size=batch.batch_size,
        train=True,
        size=batch.size,
        resize=batch.resize,
        crop=batch.crop,
        seed=batch.seed,
        dtype=batch.dtype,
        threads=task.threads,
        **task.options,  # type: ignore[arg-type]  # they come from the roster
    ) as loader:
        yield _epochs(loader)


def _epochs(loader: Loader) -> Iterator[Batch]:
    while True:
        yield from loader
