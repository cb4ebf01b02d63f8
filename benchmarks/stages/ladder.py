"""The stages of a run and the limits of the machine in images/s, all measured in turns.

    read, cold      the feed loop (shards/feed/loop.py) with a decoder that returns at once; the page cache drops the
                    shards once an epoch
    read            the same with a warm page cache: the loader's Python, and reading from memory
    + decode        with its decoder; not for stored pixels, which need none
    + finish        the whole feed loop: resize, mirror, normalise
    loader          the loader: its thread, its queue, batches of torch tensors
    loader, GPU     the loader with its batches on the GPU, by the decoder that it chooses there
    copy to GPU     one batch, page-locked and copied, over and over

Each stage but the last does all that the one before it does. The last two need a GPU.
"""

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from typing import Any

import torch

from benchmarks.measure.harness import Contender, Schedule, measure, nothing
from benchmarks.measure.machine import cores
from benchmarks.measure.result import Series
from benchmarks.measure.settings import LoaderSettings
from benchmarks.peers.turbojpeg import decoding
from benchmarks.stages.limits import disk, drop_pages, memory_copy, pcie
from shards import Loader
from shards.decode.graph import GraphConfig, GraphDecoder
from shards.decode.stored_pixels import StoredPixels
from shards.decode.tensors import Batch, CpuTensors
from shards.feed.damaged import DamagedSamples
from shards.feed.loop import Decoder, Depths, Tensors, feed, must_resize
from shards.feed.plan import Planner
from shards.feed.read import SampleReader
from shards.feed.runner import open_shards
from shards.sampling.batch import Cursor, PlannedBatch

READ_COLD, READ, DECODE, FINISH, LOADER = "read, cold", "read", "+ decode", "+ finish", "loader"
ON_GPU, COPY = "loader, GPU", "copy to GPU"
DISK, CACHE = "disk, cold, in sequence", "page cache, in sequence"
LIBJPEG, MEMORY, PCIE = "libjpeg-turbo, whole images", "memory copy", "PCIe"
# The limits that hold for each stage; the lowest of those that were measured is its limit.
LIMITS = {
    READ_COLD: (DISK,),
    READ: (CACHE,),
    DECODE: (CACHE, LIBJPEG),
    FINISH: (CACHE, LIBJPEG, MEMORY),
    LOADER: (CACHE, LIBJPEG, MEMORY),
    ON_GPU: (CACHE,),
    COPY: (PCIE,),
}

# Opens an endless stream of numbers of images.
Open = Callable[[], AbstractContextManager[Iterator[float]]]


def ladder(settings: LoaderSettings, schedule: Schedule) -> list[Series]:
    """Measures the stages and, after them, the limits that these settings and this machine have.

    The settings of each series say its `group`, "ladder" or "limits"; those of a stage name its `limit` too.
    """
    stages, limits = stages_of(settings), limits_of(settings)
    sync = torch.cuda.synchronize if torch.cuda.is_available() else nothing
    contenders = [
        Contender(name, open_, float, depth=Depths.decoding + Depths.ready, sync=sync)
        for name, open_ in (stages | limits).items()
    ]
    intervals = measure(contenders, schedule)
    measured = [Series.of(name, intervals[name], {"group": "limits"}) for name in limits]
    rates = {limit.name: limit.spread.median for limit in measured}
    return [
        *(Series.of(name, intervals[name], {"group": "ladder", "limit": limit_of(name, rates)}) for name in stages),
        *measured,
    ]


def limit_of(stage: str, rates: dict[str, float]) -> str:
    """The name of the lowest limit that holds for a stage; `rates`: images/s of each limit that was measured."""
    return min((limit for limit in LIMITS[stage] if limit in rates), key=lambda limit: rates[limit])


def stages_of(settings: LoaderSettings) -> dict[str, Open]:
    """The stages that these settings and this machine have, from the lowest."""
    stages: dict[str, Open] = {
        READ_COLD: lambda: _feeding(settings, decodes=False, finishes=False, cold=True),
        READ: lambda: _feeding(settings, decodes=False, finishes=False),
        DECODE: lambda: _feeding(settings, decodes=True, finishes=False),
        FINISH: lambda: _feeding(settings, decodes=True, finishes=True),
        LOADER: lambda: _loading(settings, "cpu"),
        ON_GPU: lambda: _loading(settings, "gpu"),
        COPY: lambda: _copying(settings),
    }
    absent = [DECODE] if settings.raw else []
    absent += [] if torch.cuda.is_available() else [ON_GPU, COPY]
    return {name: open_ for name, open_ in stages.items() if name not in absent}


def limits_of(settings: LoaderSettings) -> dict[str, Open]:
    """The limits that these settings and this machine have."""
    split, batch = settings.split, settings.batch
    image_bytes = 3 * batch.size**2 * (4 if batch.dtype == "float32" else 1)
    limits: dict[str, Open] = {
        DISK: lambda: disk(split, cold=True),
        CACHE: lambda: disk(split, cold=False),
        LIBJPEG: lambda: decoding(split, cores()),
        MEMORY: lambda: memory_copy(image_bytes),
        PCIE: lambda: pcie(image_bytes),
    }
    absent = [LIBJPEG] if settings.raw else []
    absent += [] if torch.cuda.is_available() else [PCIE]
    return {name: open_ for name, open_ in limits.items() if name not in absent}


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
def _feeding(settings: LoaderSettings, decodes: bool, finishes: bool, cold: bool = False) -> Iterator[Iterator[float]]:
    """The feed loop on this thread, with or without its decoder and its step to tensors."""
    split = settings.split
    with _loader(settings, "cpu") as loader:
        config = loader._feed.config
    graph, resizes, depths = config.graph, must_resize(split, config.sampling), Depths.of(split, config.graph)
    stored = StoredPixels(graph, resizes, augment=None) if settings.raw and decodes else None
    decoder: Decoder = (stored or GraphDecoder(graph)) if decodes else Idle(graph)
    tensors: Tensors = CpuTensors(graph, resizes, augment=None) if finishes else Idle(graph)
    with (
        closing(open_shards(split)) as shards,
        closing(Planner(split, config.sampling, Cursor(0, 0), check=config.check)) as planner,
        closing(SampleReader(shards, threads=depths.readers, stop=threading.Event(), stored=stored)) as reader,
        closing(decoder),
        closing(tensors),
    ):
        damaged = DamagedSamples(split, planner, reader, skip=False)
        batches = feed(planner, reader, damaged, decoder, tensors, depths)

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
    batch = settings.batch
    return Loader(
        settings.split,
        batch_size=batch.batch_size,
        train=True,
        size=batch.size,
        resize=batch.resize,
        crop=batch.crop,
        order=settings.order,
        seed=batch.seed,
        dtype=batch.dtype,
        threads=settings.threads,
        device=device,  # type: ignore[arg-type]
    )


@contextlib.contextmanager
def _loading(settings: LoaderSettings, device: str) -> Iterator[Iterator[float]]:
    with _loader(settings, device) as loader:
        yield (len(labels) for _, labels in itertools.chain.from_iterable(itertools.repeat(loader)))


@contextlib.contextmanager
def _copying(settings: LoaderSettings) -> Iterator[Iterator[float]]:
    with _loader(settings, "cpu") as loader:
        images, _ = next(iter(loader))
    yield (len(images.pin_memory().to("cuda", non_blocking=True)) for _ in itertools.repeat(None))
