"""The stages of a run and the limits of the machine in images/s, all measured in turns.

    read, cold      the feed loop (shards/feed/loop.py) with a decoder that returns at once; the page cache drops the
                    shards once an epoch
    read            the same with a warm page cache: the loader's Python, and reading from memory
    + decode        with its decoder; not for stored pixels, which need none
    loader          the loader: resize, mirror, normalise, hand over as batches of torch tensors
    loader, GPU     the loader with its batches on the GPU, by the decoder that it chooses there
    copy to GPU     one batch, page-locked and copied, over and over

Each stage up to the loader does all that the one before it does; the last two need a GPU. The limits: reading the
shards in sequence, with a cold or a warm page cache, and libjpeg-turbo alone (benchmarks/peers/turbojpeg.py).
"""

import contextlib
import itertools
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing
from dataclasses import asdict
from typing import Any

import torch

from benchmarks.measure.harness import Contender, Intervals, Schedule, measure, nothing
from benchmarks.measure.result import Series, Setting
from benchmarks.measure.settings import LoaderSettings
from benchmarks.peers.shardfeed import chosen
from benchmarks.peers.turbojpeg import decoding
from benchmarks.stages.names import CACHE, COPY, DECODE, DISK, LIBJPEG, LIMIT, LOADER, ON_GPU, READ, READ_COLD
from shards import Loader, Split
from shards.common.machine import usable_cores
from shards.decode.graph import GraphConfig, GraphDecoder
from shards.decode.tensors import Batch
from shards.feed.damaged import DamagedSamples
from shards.feed.loop import Decoder, Depths, feed
from shards.feed.plan import Planner
from shards.feed.read import SampleReader
from shards.feed.runner import open_shards
from shards.sampling.batch import Cursor, PlannedBatch

# Reads in flight, as many as the loader has, the bytes of each, and the reads between two counts.
READERS, PIECE, COUNTED = 8, 1 << 20, 32

# Opens an endless stream of numbers of images.
Open = Callable[[], AbstractContextManager[Iterator[float]]]


def ladder(
    settings: LoaderSettings, schedule: Schedule, keep: Callable[[list[Series]], object] | None = None
) -> list[Series]:
    """Measures the stages and, after them, the limits that these settings and this machine have.

    `keep`: called after each turn that counts with what is measured so far. The settings of each series say its
    `group`, "stages" or "limits"; those of a stage name its `limit` too.
    """
    split, stages = settings.split, stages_of(settings)
    limits: dict[str, Open] = {DISK: lambda: _disk(split, cold=True), CACHE: lambda: _disk(split, cold=False)}
    if not settings.raw:
        limits[LIBJPEG] = lambda: decoding(split, usable_cores())
    sync = torch.cuda.synchronize if torch.cuda.is_available() else nothing
    contenders = [
        Contender(name, open_, float, depth=Depths.decoding + Depths.ready, sync=sync)
        for name, open_ in (stages | limits).items()
    ]
    about: dict[str, dict[str, Setting]] = {name: {"group": "stages"} for name in stages}
    for name in stages.keys() & LIMIT.keys():
        about[name]["limit"] = LIMIT[name] if LIMIT[name] in limits else CACHE
    if ON_GPU in stages:
        with _loader(settings, "gpu") as loader:
            about[ON_GPU] |= chosen(loader._feed.config.graph)
    about |= {name: {"group": "limits"} for name in limits}

    def series(intervals: Intervals) -> list[Series]:
        return [Series.of(name, intervals[name], settings) for name, settings in about.items() if name in intervals]

    return series(measure(contenders, schedule, keep=keep and (lambda intervals: keep(series(intervals)))))


def stages_of(settings: LoaderSettings) -> dict[str, Open]:
    """The stages that these settings and this machine have, from the lowest."""
    stages: dict[str, Open] = {
        READ_COLD: lambda: _feeding(settings, decodes=False, cold=True),
        READ: lambda: _feeding(settings, decodes=False),
        DECODE: lambda: _feeding(settings, decodes=True),
        LOADER: lambda: _loading(settings, "cpu"),
        ON_GPU: lambda: _loading(settings, "gpu"),
        COPY: lambda: _copying(settings),
    }
    absent = {DECODE} if settings.raw else set()
    absent |= set() if torch.cuda.is_available() else {ON_GPU, COPY}
    return {name: open_ for name, open_ in stages.items() if name not in absent}


def drop_pages(split: Split) -> None:
    """Drops the shards from the page cache, which needs no special rights; pages not yet on disk stay."""
    for path in split.shard_paths:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@contextlib.contextmanager
def _disk(split: Split, cold: bool) -> Iterator[Iterator[float]]:
    """Reads the shards in sequence, pass after pass; `cold`: the page cache drops them before each pass."""
    sizes = [shard.bytes for shard in split.info.shards]
    pieces = [(shard, offset) for shard, size in enumerate(sizes) for offset in range(0, size, PIECE)]
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(path.open("rb")).fileno() for path in split.shard_paths]
        executor = stack.enter_context(ThreadPoolExecutor(READERS))

        def read(piece: tuple[int, int]) -> int:
            return len(os.pread(files[piece[0]], PIECE, piece[1]))

        def counts() -> Iterator[float]:
            while True:
                if cold:
                    drop_pages(split)
                for first in range(0, len(pieces), COUNTED):
                    yield sum(executor.map(read, pieces[first : first + COUNTED])) * len(split) / sum(sizes)

        yield counts()


class Idle:
    """Stands in for the decoder and for the step to tensors; does nothing and returns at once."""

    def __init__(self, config: GraphConfig) -> None:
        self.config = config

    def push(self, batch: PlannedBatch, data: Any) -> None: ...

    def pop(self) -> None: ...

    def restart(self) -> None: ...

    def close(self) -> None: ...

    def __call__(self, decoded: Any, batch: PlannedBatch) -> Batch:
        return torch.empty(0), torch.from_numpy(batch.labels)


@contextlib.contextmanager
def _feeding(settings: LoaderSettings, decodes: bool, cold: bool = False) -> Iterator[Iterator[float]]:
    """The feed loop on this thread, with or without its decoder, and without its step to tensors."""
    split = settings.split
    with _loader(settings, "cpu") as loader:
        config = loader._feed.config
    idle, depths = Idle(config.graph), Depths.of(split, config.graph)
    decoder: Decoder = GraphDecoder(config.graph) if decodes else idle
    with (
        closing(open_shards(split)) as shards,
        closing(Planner(split, config.sampling, Cursor(0, 0), check=config.check)) as planner,
        closing(SampleReader(shards, threads=depths.readers, stop=threading.Event(), stored=None)) as reader,
        closing(decoder),
    ):
        batches = feed(planner, reader, DamagedSamples(split, planner, reader, skip=False), decoder, idle, depths)

        def counts() -> Iterator[float]:
            since_drop = len(split)
            for batch in batches:
                if cold and since_drop >= len(split):
                    drop_pages(split)
                    since_drop = 0
                since_drop += len(batch.tensors[1])
                yield len(batch.tensors[1])

        yield counts()


def _loader(settings: LoaderSettings, device: str) -> Loader:
    options: dict[str, Any] = {**asdict(settings.batch), "order": settings.order, "threads": settings.threads}
    return Loader(settings.split, train=True, device=device, **options)  # type: ignore[arg-type]


@contextlib.contextmanager
def _loading(settings: LoaderSettings, device: str) -> Iterator[Iterator[float]]:
    with _loader(settings, device) as loader:
        yield (len(labels) for _, labels in itertools.chain.from_iterable(itertools.repeat(loader)))


@contextlib.contextmanager
def _copying(settings: LoaderSettings) -> Iterator[Iterator[float]]:
    with _loader(settings, "cpu") as loader:
        images, _ = next(iter(loader))
    yield (len(images.pin_memory().to("cuda", non_blocking=True)) for _ in itertools.repeat(None))
