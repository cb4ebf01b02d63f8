"""The feed loop: the whole way of a batch, from a cursor to tensors, in one function on one thread.

The way of a sample's bytes, and the thread on which each step runs:

    planner.next()         which samples, windows, byte ranges: pure                      the loop's thread
    reader.start(batch)    shard file, cache or object store -> one buffer of the batch   reading threads, several
                                                                                          batches ahead
    decoder.push(batch)    that buffer, in place -> DALI: the region of each JPEG         DALI's threads
    decoder.pop()          uint8 regions; on a GPU finished images                        the loop's thread waits
    tensors(pixels)        resize, policy, mirror, normalise -> torch, no further copy    finishing threads; on a GPU
                                                                                          only colours, or nothing
    ready                  finished batches wait for `take`                               the consumer's thread

For a GPU several small batches are planned, read and decoded as one, and handed on as views of it.

Samples that are stored decoded are finished by the thread that read them, and the decoder only passes them on.

A loop opens its planner, reader, decoder and finishing threads, and closes them when it ends. One event ends every wait
on its behalf. Another cursor or another configuration is another loop. Only the open shards outlive it, so that a jump
opens no file again. Two more kinds of threads: the planner's computes the next epoch's order, and those of the
prefetcher (`shards/remote/prefetch.py`) download announced shards.
"""

import contextlib
import operator
import os
import threading
import traceback
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from shards.common.errors import OutOfMemory, ShardfeedError
from shards.dataset import Split
from shards.decode.graph import GraphConfig, GraphDecoder, out_of_memory
from shards.decode.stored_pixels import StoredPixels
from shards.decode.tensors import Batch, CpuTensors, GpuTensors, of_each_view
from shards.decode.views import StoredRegions, ViewTensors
from shards.feed.damaged import DamagedSamples, ReadBatch
from shards.feed.openmp import let_idle_threads_sleep
from shards.feed.plan import Planner, SamplingConfig
from shards.feed.read import Reading, SampleReader, Shards
from shards.sampling.batch import Cursor, PlannedBatch
from shards.sampling.crops import FROM_RESIZED


class _Closes(Protocol):
    def close(self) -> None: ...


Part = TypeVar("Part", bound=_Closes)
_cuda: Any = torch.cuda  # the constructors of its streams and events have no types
# What the names of all threads of a loader begin with.
THREADS = "shardfeed-"
LESS_MEMORY = "choose a smaller batch_size or size, or decode='cpu', which needs the least memory of a GPU"


@dataclass(frozen=True)
class Depths:
    """How many batches are in each stage of a loop, and how many threads read."""

    reading: int = 4
    """Batches being read while the decoder has others: enough that a slow read does not leave it idle."""
    decoding: int = 3
    """Batches inside the decoder: fewer leave gaps between batches, more only take memory."""
    ready: int = 2
    """Finished batches that wait for the consumer: one is enough in theory, two absorb its jitter."""
    readers: int = 8
    """Reading threads: more than a cold disk needs to be busy, too few to matter where the page cache is warm."""

    @staticmethod
    def of(split: Split, config: GraphConfig) -> "Depths":
        """The depths for what is decoded where."""
        if config.decode != "raw" or config.device == "gpu":
            return Depths()
        # Finished images take several times the room of their bytes, so fewer are ahead. The reading threads compute,
        # one a core: more would wait for the interpreter's lock. Behind a URL they wait for byte ranges too.
        readers = config.threads if split.origin is None else max(Depths.readers, config.threads)
        return Depths(reading=2, decoding=1, readers=readers)


@dataclass(frozen=True)
class FeedConfig:
    """What a loop makes of a split."""

    sampling: SamplingConfig
    graph: GraphConfig
    check: bool
    """Compare every sample with its CRC-32."""
    skip_damaged: bool
    """Put the next whole sample in the place of a damaged one."""
    lends: bool = False
    """On a GPU, hand over DALI's own memory in place of a copy. A batch is then valid until the next is taken, so only
    benchmarks, which look at none longer, set this: benchmarks/peers/shardfeed.py."""


@dataclass(frozen=True)
class Delivered:
    """A finished batch: its tensors, its sample ids, and the places of the samples that stand for damaged ones."""

    tensors: Batch
    ids: npt.NDArray[np.int64]
    replaced: frozenset[int] = frozenset()
    made: Any = None
    """On a GPU, the event on the loop's stream after which the tensors are whole."""

    def without_replaced(self) -> "Delivered":
        """The batch without those samples: a smaller one, which may be empty."""
        if not self.replaced:
            return self
        images, labels = self.tensors
        kept = np.array([i for i in range(len(labels)) if i not in self.replaced], np.int64)
        places = torch.from_numpy(kept).to(labels.device)
        chosen = of_each_view(images, lambda view: view[places])
        return replace(self, tensors=(chosen, labels[places]), ids=self.ids[kept], replaced=frozenset())


class Decoder(Protocol):
    """What turns the bytes of batches into pixels, several batches at a time: `GraphDecoder`, or of stored pixels."""

    @property
    def config(self) -> GraphConfig:
        """What it is made for."""

    def push(self, batch: PlannedBatch, data: Any) -> None:
        """Begins to decode a batch; returns at once."""

    def pop(self) -> Any:
        """The pixels of the oldest batch inside. Raises RuntimeError for an image that cannot be decoded."""

    def restart(self) -> None:
        """Begins anew after an error, with no batch inside."""

    def close(self) -> None:
        """Frees what it holds; waits for the batches inside."""


class Tensors(Protocol):
    """What turns the pixels of a batch into its tensors."""

    def __call__(self, decoded: Any, batch: PlannedBatch) -> Batch:
        """The tensors of a batch."""

    def close(self) -> None:
        """Ends its threads."""


def feed(
    planner: Planner, reader: SampleReader, damaged: DamagedSamples, decoder: Decoder, tensors: Tensors, depths: Depths
) -> Iterator[Delivered]:
    """Yields finished batches endlessly, in the order of the planner."""
    reading: deque[Reading] = deque()
    decoding: deque[ReadBatch] = deque()
    again: deque[ReadBatch] = deque()  # batches that were inside a decoder that failed
    while True:
        while len(reading) <= depths.reading:
            reading.append(reader.start(planner.next()))

        whole = again.popleft() if again else damaged.wait_and_repair(reading.popleft())
        decoding.append(whole)
        try:
            decoder.push(whole.batch, whole.data)
            if len(decoding) < depths.decoding:
                continue
            pixels = decoder.pop()
        except (RuntimeError, MemoryError) as error:
            _raise_out_of_memory(error)
            again = deque(damaged.without_undecodable(error, [*decoding, *again], decoder.config))
            decoding.clear()
            decoder.restart()
            continue

        whole = decoding.popleft()
        try:
            made = tensors(pixels, whole.batch)
        except (RuntimeError, MemoryError) as error:
            _raise_out_of_memory(error)
            raise
        finished = by_steps(Delivered(made, whole.batch.ids, whole.replaced), planner.batch_size)
        # While it waits, this function must not keep the memory of a batch from being used again.
        del whole, pixels, made
        while finished:
            yield finished.popleft()


def _raise_out_of_memory(error: Exception) -> None:
    """Raises OutOfMemory where that is what `error` of DALI's, torch's or numpy's means."""
    if out_of_memory(error):
        raise OutOfMemory(f"no memory is left for the batches of the loader: {LESS_MEMORY}") from error


def by_steps(delivered: Delivered, batch_size: int) -> deque[Delivered]:
    """Batches that were decoded together as the batches of single steps: views, or the batch itself if it is one."""
    images, labels = delivered.tensors
    if len(labels) <= batch_size:
        return deque([delivered])
    parts: deque[Delivered] = deque()
    for first in range(0, len(labels), batch_size):
        here = slice(first, min(first + batch_size, len(labels)))
        replaced = frozenset(place - first for place in delivered.replaced if here.start <= place < here.stop)
        tensors = (of_each_view(images, operator.itemgetter(here)), labels[here])
        parts.append(Delivered(tensors, delivered.ids[here], replaced))
    return parts


class FeedLoop:
    """Prepares batches on a thread of its own, from `cursor` on, and keeps a few of them ready.

    The loop ends by `stop`, or with its first error.
    """

    def __init__(self, split: Split, shards: Shards, config: FeedConfig, cursor: Cursor) -> None:
        self.cursor = cursor
        """The cursor of the batch that `take` returns next."""
        self._split = split
        self._shards = shards
        self._config = config
        # A stream of its own: on the consumer's, a batch that is not decoded yet would hold up the kernels of the step
        # that is running, because it is prepared several batches ahead.
        self._stream = None if config.graph.device == "cpu" else _cuda.Stream(config.graph.device_id)
        self._waits: deque[tuple[Any, Any]] = deque()  # events on the consumer's stream around its waits for batches
        self._waited = 0.0  # seconds of waits that are over and were not asked for yet
        self._depths = Depths.of(split, config.graph)
        self._process = os.getpid()
        self._stop = threading.Event()
        self._slots = threading.Semaphore(self._depths.ready)
        self._ready: SimpleQueue[Delivered | BaseException] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, args=(cursor,), name=f"{THREADS}loop", daemon=True)
        self._thread.start()

    def take(self) -> Delivered:
        """The next batch: waits for it. Raises the error that ended the loop, ShardfeedError in a forked child."""
        if os.getpid() != self._process:
            raise ShardfeedError(
                "this loader began to feed before the process was forked, and its threads are in the parent: make the "
                "loader in the child, or start children by spawn"
            )
        result = self._ready.get()
        if isinstance(result, BaseException):
            self._ready.put(result)  # for the next call: the thread is gone, and nothing else will come
            raise result
        self._slots.release()
        sampling = self._config.sampling
        self.cursor = self.cursor.after(sampling.share, sampling.draw.length(len(self._split)))
        return result if self._stream is None else self._handed_over(result, self._stream)

    def gpu_wait(self) -> float:
        """Seconds that the consumer's stream has waited for batches since the last call, where that is over."""
        self._count_waits()
        seconds, self._waited = self._waited, 0.0
        return seconds

    def _count_waits(self) -> None:
        while self._waits and self._waits[0][1].query():
            before, after = self._waits.popleft()
            self._waited += before.elapsed_time(after) / 1000

    def stop(self) -> None:
        """Ends the loop and waits until its threads are gone; what they wait for is given up."""
        self._stop.set()
        self._ready.put(ShardfeedError("the loader is closed"))  # for a consumer that waits on another thread
        self._slots.release()
        self._thread.join()

    def _handed_over(self, delivered: Delivered, stream: torch.cuda.Stream) -> Delivered:
        """A copy of the batch for the stream that is current now; the batch itself where it is lent.

        The memory of the original is DALI's, which uses it again in the order of the loop's stream. The copy takes
        microseconds on the GPU; its memory is torch's, which knows the stream that uses it. A batch that is lent is
        freed after the next one was taken, so after all that the consumer had queued by then.
        """
        current = torch.cuda.current_stream(self._config.graph.device_id)
        before = current.record_event(_cuda.Event(enable_timing=True))
        current.wait_event(delivered.made)
        self._waits.append((before, current.record_event(_cuda.Event(enable_timing=True))))
        self._count_waits()  # with every batch: a loop of a user's own never asks for them
        tensors = delivered.tensors
        if not self._config.lends:
            tensors = (of_each_view(tensors[0], torch.clone), tensors[1].clone())
        stream.wait_stream(current)
        return replace(delivered, tensors=tensors)

    def _with_event(self, delivered: Delivered) -> Delivered:
        return delivered if self._stream is None else replace(delivered, made=self._stream.record_event())

    def _run(self, cursor: Cursor) -> None:
        try:
            let_idle_threads_sleep()
            if self._config.graph.device_id is not None:
                torch.cuda.set_device(self._config.graph.device_id)  # a new thread begins on device 0
            with contextlib.closing(self._batches(cursor)) as batches:
                while True:
                    self._slots.acquire()
                    if self._stop.is_set():
                        return
                    self._ready.put(self._with_event(next(batches)))
        except BaseException as error:
            _forget_locals(error)
            self._ready.put(error)

    def _batches(self, cursor: Cursor) -> Generator[Delivered]:
        """Opens what the loop works with, feeds, and closes it all."""
        split, depths, sampling, graph = self._split, self._depths, self._config.sampling, self._config.graph
        on_gpu, resizes, check = graph.device == "gpu", must_resize(split, sampling), self._config.check
        with contextlib.ExitStack() as stack:

            def opened(part: Part) -> Part:
                return stack.enter_context(contextlib.closing(part))

            raw, views = graph.decode == "raw" and not on_gpu, sampling.views
            stored = StoredPixels(graph, resizes, sampling.augment) if raw and not views else None
            together = graph.batch_size // sampling.share.batch_size
            planner = opened(Planner(split, sampling, cursor, check=check, together=together))
            reader = opened(SampleReader(self._shards, threads=depths.readers, stop=self._stop, stored=stored))
            damaged = DamagedSamples(split, planner, reader, skip=self._config.skip_damaged)
            decoder: Decoder = opened(stored or (StoredRegions(graph) if raw else GraphDecoder(graph, self._stream)))
            tensors: Tensors = opened(
                GpuTensors(graph, self._stream)
                if on_gpu
                else ViewTensors(graph)
                if views
                else CpuTensors(graph, resizes, sampling.augment)
            )
            try:
                yield from feed(planner, reader, damaged, decoder, tensors, depths)
            finally:
                self._stop.set()  # also after an error: reads that are still under way are not waited for


def _forget_locals(error: BaseException | None) -> None:
    """Empties the frames of the functions that an error left: they refer to the graph, which would keep its memory."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def must_resize(split: Split, sampling: SamplingConfig) -> bool:
    """Whether any crop window differs in size from the output."""
    if sampling.crop not in FROM_RESIZED:
        return True
    return bool(np.any(np.minimum(split.index.width, split.index.height) != sampling.resize))
