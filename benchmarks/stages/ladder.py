"""The stages of a run, each a contender: the loader's own parts, put together one by one as shards/feed/loop.py does.

    read, cold      plan and read each batch; the shards leave the page cache before every epoch
    read            the same, page cache warm
    + decode        the feed loop up to the decoder; not for stored pixels, which need none
    + finish        the whole feed loop: resize, mirror, normalise
    + hand-over     the loader: its thread, its queue, batches of torch tensors
    + copy to GPU   those batches, page-locked and copied; where there is a GPU
    GPU decode      the loader with its batch on the GPU, by the decoder that it chooses there
    cached batch    one batch, over and over: a loader without any cost

The feed loop with a decoder that returns at once shows the loader's Python alone. The model's step is in training.py.
"""

import contextlib
import functools
import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch

from benchmarks.measure.harness import Contender, nothing
from benchmarks.measure.settings import LoaderSettings
from benchmarks.stages import limits
from shards import Loader, Split
from shards.decode.graph import GraphConfig, GraphDecoder
from shards.decode.stored_pixels import StoredPixels
from shards.decode.tensors import Batch, CpuTensors
from shards.feed.damaged import DamagedSamples
from shards.feed.loop import Decoder, Depths, FeedConfig, Tensors, feed, must_resize
from shards.feed.plan import Planner
from shards.feed.read import Reading, SampleReader
from shards.feed.runner import open_shards
from shards.sampling.batch import Cursor, PlannedBatch

READ_COLD, READ, DECODE, FINISH, HAND_OVER = "read, cold", "read", "+ decode", "+ finish", "+ hand-over"
COPY, GPU_DECODE, CACHED = "+ copy to GPU", "GPU decode", "cached batch"
LOOP_ALONE = "decoder that returns at once"
# Limits; see limits.py.
COLD_SEQUENCE, COLD_RANDOM, WARM = "disk, cold, in sequence", "disk, cold, random", "disk, warm"
LIBJPEG, MEMORY, PCIE = "libjpeg-turbo, whole images", "memory copy", "PCIe"

Open = Callable[[], AbstractContextManager[Iterator[int]]]


def stages(settings: LoaderSettings) -> dict[str, Contender]:
    """The stages that these settings and this machine have, from the lowest; their batches are numbers of images."""
    opens: dict[str, Open] = {
        READ_COLD: functools.partial(_reading, settings, cold=True),
        READ: functools.partial(_reading, settings),
    }
    if not settings.raw:
        opens[DECODE] = functools.partial(_feeding, settings, finishes=False)
    opens[FINISH] = functools.partial(_feeding, settings)
    opens[HAND_OVER] = functools.partial(_loading, settings)
    if torch.cuda.is_available():
        opens[COPY] = functools.partial(_loading, settings, copy=True)
        opens[GPU_DECODE] = functools.partial(_loading, settings, device="gpu")
    opens[CACHED] = functools.partial(_cached, settings)
    return {name: _contender(name, each) for name, each in opens.items()}


def loop_alone(settings: LoaderSettings) -> Contender:
    """The feed loop with a decoder that returns at once; of stored pixels, which need none, the reading."""
    if settings.raw:
        return _contender(LOOP_ALONE, functools.partial(_reading, settings))
    return _contender(LOOP_ALONE, functools.partial(_feeding, settings, decodes=False, finishes=False))


def machine_limits(settings: LoaderSettings) -> dict[str, Contender]:
    """The limits that these settings and this machine have."""
    split, image_bytes = settings.split, 3 * settings.batch.size**2 * (4 if settings.batch.dtype == "float32" else 1)
    found = [
        limits.disk(COLD_SEQUENCE, split, "sequence", cold=True),
        limits.disk(COLD_RANDOM, split, "random", cold=True),
        limits.disk(WARM, split, "random", cold=False),
        *([] if settings.raw else [limits.libjpeg(LIBJPEG, split)]),
        limits.memory_copy(MEMORY, image_bytes),
        *([limits.pcie(PCIE, image_bytes)] if torch.cuda.is_available() else []),
    ]
    return {limit.name: limit for limit in found}


def _contender(name: str, open_: Open) -> Contender:
    sync = torch.cuda.synchronize if torch.cuda.is_available() else nothing
    return Contender(name, open_, int, depth=Depths.decoding + Depths.ready, sync=sync)


def limit_of(name: str, rates: Mapping[str, float], order: str) -> str | None:
    """The lowest of the limits that hold for a stage, by `rates`, images/s of each limit that was measured."""
    passes = {
        READ_COLD: [COLD_SEQUENCE if order == "blocks" else COLD_RANDOM],
        READ: [WARM],
        COPY: [WARM, LIBJPEG, MEMORY, PCIE],
        GPU_DECODE: [WARM, PCIE],
        CACHED: [],
    }.get(name, [WARM, LIBJPEG, MEMORY])
    return min((each for each in passes if each in rates), key=lambda each: rates[each], default=None)


class Idle:
    """Stands in for the decoder and for the step to tensors, and returns at once: nothing is decoded or finished."""

    def __init__(self, config: GraphConfig) -> None:
        self.config = config

    def push(self, batch: PlannedBatch, data: Any) -> None: ...

    def pop(self) -> None: ...

    def restart(self) -> None: ...

    def close(self) -> None: ...

    def __call__(self, decoded: Any, batch: PlannedBatch) -> Batch:
        return torch.empty(0), torch.from_numpy(batch.labels)


class IdlePixels(StoredPixels):
    """Stored pixels are read by threads that finish nothing."""

    def on_sample(self, batch: PlannedBatch, images: Any, places: Sequence[int]) -> Callable[[int, Any], None]:
        return lambda i, sample: None


def _config(settings: LoaderSettings) -> FeedConfig:
    """What the loader makes its feed loop for."""
    with loader(settings) as made:
        return made._feed.config


@contextlib.contextmanager
def _opened(split: Split, config: FeedConfig, stored: StoredPixels | None) -> Iterator[tuple[Planner, SampleReader]]:
    """The planner, from the first epoch on, and the sample reader."""
    threads, stop = Depths.of(split, config.graph).readers, threading.Event()
    with (
        contextlib.closing(open_shards(split)) as shards,
        contextlib.closing(Planner(split, config.sampling, Cursor(0, 0), check=config.check)) as planner,
        contextlib.closing(SampleReader(shards, threads=threads, stop=stop, stored=stored)) as reader,
    ):
        yield planner, reader


@contextlib.contextmanager
def _reading(settings: LoaderSettings, cold: bool = False) -> Iterator[Iterator[int]]:
    """Plans and reads, as many batches ahead as the feed loop."""
    split, config = settings.split, _config(settings)
    ahead = Depths.of(split, config.graph).reading
    stored = IdlePixels(config.graph, resizes=False, augment=None) if settings.raw else None
    with _opened(split, config, stored) as (planner, reader):

        def counts() -> Iterator[int]:
            epoch = -1
            under_way: deque[Reading] = deque()
            while True:
                while len(under_way) <= ahead:
                    batch = planner.next()
                    if cold and batch.cursor.epoch != epoch:
                        epoch = batch.cursor.epoch
                        limits.drop_pages(split.shard_paths)
                    under_way.append(reader.start(batch))
                reading = under_way.popleft()
                reading.wait()
                yield len(reading.batch)

        yield counts()


@contextlib.contextmanager
def _feeding(settings: LoaderSettings, decodes: bool = True, finishes: bool = True) -> Iterator[Iterator[int]]:
    with feeding(settings, decodes, finishes) as batches:
        yield (len(labels) for _, labels in batches)


@contextlib.contextmanager
def feeding(settings: LoaderSettings, decodes: bool = True, finishes: bool = True) -> Iterator[Iterator[Batch]]:
    """The feed loop on this thread, with or without its decoder and its step to tensors."""
    split, config = settings.split, _config(settings)
    graph, resizes = config.graph, must_resize(split, config.sampling)
    stored = StoredPixels(graph, resizes, augment=None) if settings.raw else None
    with _opened(split, config, stored) as (planner, reader):
        decoder: Decoder = (stored or GraphDecoder(graph)) if decodes else Idle(graph)
        tensors: Tensors = CpuTensors(graph, resizes, augment=None) if finishes else Idle(graph)
        damaged = DamagedSamples(split, planner, reader, skip=False)
        with contextlib.closing(decoder), contextlib.closing(tensors):
            delivered = feed(planner, reader, damaged, decoder, tensors, Depths.of(split, graph))
            yield (each.tensors for each in delivered)


def loader(settings: LoaderSettings, device: str = "cpu") -> Loader:
    """The loader of these settings, for training."""
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
def _loading(settings: LoaderSettings, device: str = "cpu", copy: bool = False) -> Iterator[Iterator[int]]:
    with loader(settings, device) as batches:

        def counts() -> Iterator[int]:
            for images, labels in itertools.chain.from_iterable(itertools.repeat(batches)):
                if copy:
                    images.pin_memory().to("cuda", non_blocking=True)
                yield len(labels)

        yield counts()


@contextlib.contextmanager
def _cached(settings: LoaderSettings) -> Iterator[Iterator[int]]:
    with loader(settings) as batches:
        images, labels = next(iter(batches))
    yield (len(labels) for _ in itertools.repeat(images))
