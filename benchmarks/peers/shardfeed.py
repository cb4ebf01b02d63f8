"""This project's loader. What the job's options say goes to it; otherwise its defaults."""

import contextlib
from collections.abc import Iterator

import torch

from benchmarks.measure.harness import nothing
from benchmarks.peers.naive import Batch
from benchmarks.processes.job import Job, Peer
from shards import Loader
from shards.decode.graph import PREFETCH
from shards.feed.loop import READY


def peer(job: Job) -> Peer:
    """Its settings; on a GPU the clock waits for the device."""
    on_gpu = job.options.get("device") == "gpu"
    stored = job.opened().manifest.settings.encoding
    dct = "none (raw pixels)" if stored == "raw" else "fast" if job.options.get("fast_idct") else "accurate"
    return Peer(
        lambda: batches(job),
        {"order": "global", "resize": "none" if job.recipe.crop == "random" else "antialiased"}
        | ({} if on_gpu else {"dct": dct})
        | dict(job.options),
        depth=PREFETCH + READY,
        sync=torch.cuda.synchronize if on_gpu else nothing,
    )


@contextlib.contextmanager
def batches(job: Job) -> Iterator[Iterator[Batch]]:
    """Shuffled batches without end."""
    recipe = job.recipe
    with Loader(
        job.opened(),
        batch_size=recipe.batch_size,
        train=True,
        size=recipe.size,
        resize=recipe.resize,
        crop=recipe.crop,
        seed=recipe.seed,
        dtype=recipe.dtype,
        threads=job.threads,
        **job.options,  # type: ignore[arg-type]  # they come from the roster
    ) as loader:
        yield _epochs(loader)


def _epochs(loader: Loader) -> Iterator[Batch]:
    while True:
        yield from loader
