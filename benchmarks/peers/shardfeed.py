"""This project's loader, with its defaults; the task's options are arguments of it.

The option `lends` is none: on a GPU batches are then DALI's own memory, lent until the next one, in place of copies.
"""

import contextlib
import dataclasses
from collections.abc import Iterator

import torch

from benchmarks.measure.harness import nothing
from benchmarks.measure.result import Setting
from benchmarks.peers.roster import DALI_LOAD
from benchmarks.processes.task import Batch, Peer, PeerTask
from shards import Loader
from shards.decode.graph import ON_ENGINES, GraphConfig
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
        | dict(task.options)
        | decoding(task),
        depth=Depths.decoding + Depths.ready,
        sync=torch.cuda.synchronize if on_gpu else nothing,
    )


@contextlib.contextmanager
def batches(task: PeerTask) -> Iterator[Iterator[Batch]]:
    """Endless shuffled batches."""
    with loader_of(task) as loader:
        yield _epochs(loader)


def decoding(task: PeerTask) -> dict[str, Setting]:
    """What decodes, as the loader has chosen; for a GPU also how, and how many images at a time."""
    with loader_of(task) as loader:
        return chosen(loader._feed.config.graph)


def chosen(graph: GraphConfig) -> dict[str, Setting]:
    """The part of a graph that says who decodes; `hw_decoder_load`, the engines' share, only where there are some."""
    if graph.device == "cpu":
        return {"decode": graph.decode}
    engines = {} if graph.decode not in ON_ENGINES else {"hw_decoder_load": graph.hw_decoder_load}
    if engines.get("hw_decoder_load", 0.0) is None:
        engines = {"hw_decoder_load": DALI_LOAD}
    return {
        "decode": graph.decode,
        **engines,
        "fancy_upsampling": graph.fancy_upsampling,
        "decoded_together": graph.batch_size,
    }


def loader_of(task: PeerTask) -> Loader:
    """The loader that the task describes."""
    batch, options = task.batch, dict(task.options)
    lends = bool(options.pop("lends", False))
    loader = Loader(
        task.open_split(),
        batch_size=batch.batch_size,
        train=True,
        size=batch.size,
        resize=batch.resize,
        crop=batch.crop,
        seed=batch.seed,
        dtype=batch.dtype,
        threads=task.threads,
        **options,  # type: ignore[arg-type]  # they come from the roster
    )
    loader._feed.config = dataclasses.replace(loader._feed.config, lends=lends)
    return loader


def _epochs(loader: Loader) -> Iterator[Batch]:
    while True:
        yield from loader
