"""The rungs of the ladder: the loader's own parts, put together one by one as shards/feed/loop.py does.

read, cold      order, windows and the bytes of each batch, the shards dropped from the page cache every epoch
read            the same, page cache warm
+ decode        each sample's window, by DALI; not for raw shards
+ crop, resize  to the output's size, where the window is not that already (for raw shards: cutting it out)
+ normalise     mirrored and normalised; + flip: mirrored, for uint8
+ hand-over     the loader itself: its thread, its queue, torch tensors with labels
+ copy to GPU   those batches, page-locked and copied; where there is a GPU
GPU decode      the loader with its batch on the GPU, by the decoder that it chooses there
cached batch    one batch, over and over: what a loader without any cost would give
"""

import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch

from benchmarks.ladder.limits import drop_pages
from benchmarks.ladder.stub import IdleCutter, IdleFinisher, instant_decoder
from benchmarks.measure.harness import Contender
from shards import Loader, Split
from shards.decode.finish import Finisher
from shards.decode.graph import PREFETCH, DType, Graph
from shards.feed.loop import READY, Producer, must_resize
from shards.feed.plan import Feeder, Recipe
from shards.sampling.crops import Crop
from shards.sampling.order import Order, Share

READ_COLD, READ, DECODE, RESIZE, NORMALISE, FLIP, HAND_OVER, COPY, ON_GPU, CACHED = (
    "read, cold",
    "read",
    "+ decode",
    "+ crop, resize",
    "+ normalise",
    "+ flip",
    "+ hand-over",
    "+ copy to GPU",
    "GPU decode",
    "cached batch",
)


@dataclass(frozen=True)
class Work:
    """What every rung makes batches of. resize: shorter side before the crop."""

    split: Split
    batch_size: int
    size: int
    resize: int
    crop: Crop
    order: Order
    dtype: DType
    threads: int

    @property
    def recipe(self) -> Recipe:
        return Recipe(
            share=Share(self.batch_size, drop_last=True),
            seed=0,
            order=self.order,
            crop=self.crop,
            flip=True,
            resize=self.resize,
            size=self.size,
            skip_damaged=False,
        )

    @property
    def raw(self) -> bool:
        return self.split.manifest.settings.encoding == "raw"

    @property
    def resizes(self) -> bool:
        """Whether windows are of other sizes than the output."""
        return must_resize(self.split, self.recipe)

    def loader(self, device: str = "cpu", **more: Any) -> Loader:
        """The loader for this work."""
        chosen: dict[str, Any] = {"dtype": self.dtype, "threads": self.threads, "order": self.order, **more}
        return Loader(
            self.split,
            batch_size=self.batch_size,
            train=True,
            size=self.size,
            resize=self.resize,
            crop=self.crop,
            device=device,  # type: ignore[arg-type]
            **chosen,
        )


def rungs(work: Work) -> list[Contender]:
    """The rungs that this work and this machine have, from the lowest; each gives numbers of images."""
    found: dict[str, Callable[[], Any]] = {
        READ_COLD: functools.partial(reading, work, cold=True),
        READ: functools.partial(reading, work),
    }
    if not work.raw:
        found[DECODE] = functools.partial(_made, work, finish=False)
    pixels = functools.partial(_made, dataclasses.replace(work, dtype="uint8"))
    if work.raw or work.resizes:
        found[RESIZE] = pixels
    elif work.dtype == "uint8":
        found[FLIP] = pixels
    if work.dtype == "float32":
        found[NORMALISE] = functools.partial(_made, work)
    found[HAND_OVER] = functools.partial(handed_over, work)
    if torch.cuda.is_available():
        found[COPY] = functools.partial(_copied, work)
        found[ON_GPU] = functools.partial(handed_over, work, "gpu")
    found[CACHED] = functools.partial(_cached, work)
    sync = torch.cuda.synchronize if torch.cuda.is_available() else _no_sync
    return [Contender(name, open_, _same, depth=PREFETCH + READY, sync=sync) for name, open_ in found.items()]


def _same(images: int) -> int:
    return images


def _no_sync() -> None:
    """Work on a CPU is done when it returns."""


@contextlib.contextmanager
def reading(work: Work, cold: bool = False) -> Iterator[Iterator[int]]:
    """The loader's reading alone, images a batch. cold: the shards leave the page cache before every epoch."""
    graph = _graph_of(work)
    # Stored pixels are read as for the rungs above, into buffers that stay in the caches of the cores.
    cutter = IdleCutter("uint8", resizes=False, mirrors=False) if work.raw else None
    with contextlib.closing(
        Feeder(work.split, work.recipe, graph.decode, graph.inputs, cutter, graph.threads)
    ) as feeder:

        def batches() -> Iterator[int]:
            epoch = -1
            while True:
                feeder()
                planned = feeder.planned.popleft()
                if cold and planned.place.epoch != epoch:
                    drop_pages(work.split.shard_paths)
                    epoch = planned.place.epoch
                yield len(planned.ids)

        if cold:
            drop_pages(work.split.shard_paths)
        yield batches()


@contextlib.contextmanager
def handed_over(work: Work, device: str = "cpu", stub: bool = False) -> Iterator[Iterator[int]]:
    """The loader, images a batch; with a decoder that returns at once if `stub`."""
    with instant_decoder(work.resizes) if stub else contextlib.nullcontext(), work.loader(device) as loader:
        yield (len(labels) for _, labels in endless(loader))


def endless(loader: Loader) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The batches of epoch after epoch."""
    while True:
        yield from loader


@contextlib.contextmanager
def _copied(work: Work) -> Iterator[Iterator[int]]:
    with work.loader() as loader:

        def batches() -> Iterator[int]:
            for images, labels in endless(loader):
                images.pin_memory().to("cuda", non_blocking=True)
                yield len(labels)

        yield batches()


@contextlib.contextmanager
def _cached(work: Work) -> Iterator[Iterator[int]]:
    with work.loader() as loader:
        images, labels = next(iter(loader))
    yield (len(labels) for _ in itertools.repeat(images))


@contextlib.contextmanager
def _made(work: Work, finish: bool = True) -> Iterator[Iterator[int]]:
    """Batches as the loader's thread makes them, on this thread; only decoded unless `finish`. Images a batch."""
    with mock.patch("shards.feed.loop.Finisher", Finisher if finish else IdleFinisher):
        producer = Producer(work.split, work.recipe, _graph_of(work))
    with contextlib.closing(producer):
        yield (len(producer._make()[1]) for _ in itertools.repeat(None))


def _graph_of(work: Work) -> Graph:
    return Graph(
        device="cpu",
        decode="raw" if work.raw else "cpu",
        dtype=work.dtype,
        batch_size=work.batch_size,
        resize=False,  # on a CPU that follows the graph
        threads=work.threads,
    )
