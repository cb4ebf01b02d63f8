"""The feed loop: the whole way of a batch, from a cursor to tensors, in one function on one thread.

The way of a sample's bytes, and the thread on which each step runs:

    planner.next()         which samples, windows, byte ranges: pure                      the loop's thread
    reader.start(batch)    shard file, cache or object store -> one buffer of the batch   reading threads, several
                                                                                          batches ahead
    decoder.push(batch)    that buffer, in place -> DALI: the region of each JPEG         DALI's threads
    decoder.pop()          uint8 regions; on a GPU finished images                        the loop's thread waits
    tensors(pixels)        resize, policy, mirror, normalise -> torch, no further copy    finishing threads; on a GPU
                                                                                          only a hand-over
    ready                  finished batches wait for `take`                               the consumer's thread

Samples that are stored decoded are finished by the thread that read them, and the decoder only passes them on.

Everything that works for a loop lives as long as the loop and ends with it; one event stops all of it. Another cursor
or another configuration is another loop. Only the open shards outlive it, so that a jump opens no file again.
"""

import contextlib
import threading
import zlib
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from shards.common.errors import ShardfeedError
from shards.dataset import Split
from shards.decode.graph import GraphConfig, GraphDecoder
from shards.decode.stored_pixels import StoredPixels
from shards.decode.tensors import Batch, CpuTensors, GpuTensors
from shards.feed.plan import Planner, SamplingConfig
from shards.feed.read import LoopStopped, Reading, SampleReader, Shards
from shards.sampling.batch import Cursor, PlannedBatch


class _Closes(Protocol):
    def close(self) -> None: ...


Part = TypeVar("Part", bound=_Closes)
# What the names of all threads of a loader begin with.
THREADS = "shardfeed-"


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
class Delivered:
    """A finished batch: its tensors, and how many of its samples stand in the place of damaged ones."""

    tensors: Batch
    replaced: int


class Decoder(Protocol):
    """What turns the bytes of batches into pixels, several batches at a time."""

    def push(self, batch: PlannedBatch, data: Any) -> None:
        """Begins to decode a batch; returns at once."""

    def pop(self) -> Any:
        """The pixels of the oldest batch inside."""

    def close(self) -> None:
        """Frees what it holds; waits for the batches inside."""


class Tensors(Protocol):
    """What turns the pixels of a batch into its tensors."""

    def __call__(self, decoded: Any, batch: PlannedBatch) -> Batch:
        """The tensors of a batch."""

    def close(self) -> None:
        """Ends its threads."""


def feed(
    split: Split, planner: Planner, reader: SampleReader, decoder: Decoder, tensors: Tensors, depths: Depths, skip: bool
) -> Iterator[Delivered]:
    """Finished batches without end. `skip`: put the next whole sample in the place of a damaged one."""
    stored = decoder if isinstance(decoder, StoredPixels) else None
    reading: deque[_Begun] = deque()
    decoding: deque[_Whole] = deque()
    while True:
        while len(reading) <= depths.reading:
            reading.append(_start(planner.next(), reader, stored))

        whole = _whole(reading.popleft(), split, planner, reader, stored, skip)
        try:
            decoder.push(whole.batch, whole.data)
            decoding.append(whole)
            if len(decoding) < depths.decoding:
                continue
            pixels = decoder.pop()
        except RuntimeError as error:
            raise _explain(error, [*decoding, whole], split) from error
        oldest = decoding.popleft()
        yield Delivered(tensors(pixels, oldest.batch), oldest.replaced)


@dataclass(frozen=True)
class _Begun:
    """A batch being read. `images`: where the reading threads put what they finish; None where a decoder follows."""

    reading: Reading
    images: npt.NDArray[Any] | None


@dataclass(frozen=True)
class _Whole:
    """A batch that was read: its bytes, or its finished images."""

    batch: PlannedBatch
    data: Any
    replaced: int


def _start(batch: PlannedBatch, reader: SampleReader, stored: StoredPixels | None) -> _Begun:
    if stored is None:
        return _Begun(reader.start(batch), None)
    images = stored.images(batch)
    return _Begun(reader.start(batch, stored.on_sample(batch, images, range(len(batch)))), images)


def _whole(
    begun: _Begun, split: Split, planner: Planner, reader: SampleReader, stored: StoredPixels | None, skip: bool
) -> _Whole:
    """Waits for the bytes of a batch; reads whole samples in the place of damaged ones where that is wanted."""
    batch, data, images = begun.reading.batch, begun.reading.data, begun.images
    troubles = begun.reading.wait()
    replaced = {place for place, _ in troubles}
    for _ in range(len(split)):
        if not troubles:
            return _Whole(batch, data if images is None else images, len(replaced))
        if not skip:
            place, trouble = troubles[0]
            raise ShardfeedError(describe(split, int(batch.ids[place]), trouble))
        places = [place for place, _ in troubles]
        ids = batch.ids.copy()
        ids[places] = (ids[places] + 1) % len(split)
        batch = planner.batch(batch.cursor, ids)
        others = planner.batch(batch.cursor, ids[places])
        on_sample = None if stored is None or images is None else stored.on_sample(others, images, places)
        again = reader.start(others, on_sample)
        troubles = [(places[i], trouble) for i, trouble in again.wait()]
        for place, sample in zip(places, again.data, strict=False):
            data[place] = sample
    raise ShardfeedError(f"no sample of {split.name} can be read: copy or make the data set again")


def describe(split: Split, sample: int, trouble: str) -> str:
    """One line that names a sample, its shard and its place there, and says what to do."""
    index = split.index
    return (
        f"sample {split.keys()[sample]} in {split.shard_place(int(index.shard[sample]))} at byte "
        f"{int(index.offset[sample]):,} {trouble}: copy or make the shard again; on_error skip goes on without it"
    )


def _explain(error: RuntimeError, inside: Sequence[_Whole], split: Split) -> ShardfeedError:
    """Names a sample in the decoder whose bytes are not what the index says; otherwise passes DALI's words on."""
    index = split.index
    if split.manifest.settings.encoding == "jpeg":
        for whole in inside:
            for sample, data in zip(whole.batch.ids.tolist(), whole.data, strict=True):
                if zlib.crc32(data) != int(index.crc32[sample]):
                    return ShardfeedError(describe(split, sample, "is damaged (its checksum is wrong)"))
    return ShardfeedError(f"DALI failed on a batch of {split.name}: {' '.join(str(error).split())}")


class FeedLoop:
    """A thread that feeds batches from `cursor` on and keeps a few of them ready.

    `stream`: the consumer's CUDA stream, for a GPU. It ends by `stop`, or with the first error, which `take` raises.
    """

    def __init__(
        self,
        split: Split,
        shards: Shards,
        sampling: SamplingConfig,
        config: GraphConfig,
        cursor: Cursor,
        *,
        skip_damaged: bool,
        stream: Any = None,
    ) -> None:
        self.cursor = cursor
        """Where the batch lies that `take` gives next."""
        self._split = split
        self._shards = shards
        self._sampling = sampling
        self._config = config
        self._skip = skip_damaged
        self._stream = stream
        self._depths = Depths.of(split, config)
        self._stop = threading.Event()
        self._slots = threading.Semaphore(self._depths.ready)
        self._ready: SimpleQueue[Delivered | BaseException] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, args=(cursor,), name=f"{THREADS}loop", daemon=True)
        self._thread.start()

    def take(self) -> Delivered:
        """The next batch: waits for it. Raises the error that ended the loop."""
        result = self._ready.get()
        if isinstance(result, BaseException):
            self._ready.put(result)  # for the next call: the thread is gone, and nothing else will come
            raise result
        self._slots.release()
        self.cursor = self.cursor.after(self._sampling.share, len(self._split))
        return result

    def stop(self) -> None:
        """Ends the loop and waits until its threads are gone; what they wait for is given up."""
        self._stop.set()
        self._slots.release()
        self._thread.join()

    def _run(self, cursor: Cursor) -> None:
        try:
            if self._config.device_id is not None:
                torch.cuda.set_device(self._config.device_id)  # a new thread begins on device 0
            with contextlib.closing(self._batches(cursor)) as batches:
                while True:
                    self._slots.acquire()
                    if self._stop.is_set():
                        return
                    self._ready.put(next(batches))
        except LoopStopped:
            return
        except BaseException as error:
            self._ready.put(error)

    def _batches(self, cursor: Cursor) -> Generator[Delivered]:
        """Opens what the loop works with, feeds, and closes it all."""
        split, sampling, config, depths = self._split, self._sampling, self._config, self._depths
        on_gpu, resizes = config.device == "gpu", must_resize(split, sampling)
        with contextlib.ExitStack() as stack:

            def opened(part: Part) -> Part:
                return stack.enter_context(contextlib.closing(part))

            planner = opened(Planner(split, sampling, cursor, whole_samples=self._skip))
            reader = opened(SampleReader(self._shards, threads=depths.readers, check=self._skip, stop=self._stop))
            decoder: Decoder
            if config.decode == "raw" and not on_gpu:
                decoder = opened(stored_pixels(config, sampling, resizes))
            else:
                decoder = opened(GraphDecoder(config, self._stream))
            tensors: Tensors = opened(
                GpuTensors(self._stream) if on_gpu else CpuTensors(config, resizes, sampling.augment)
            )
            yield from feed(split, planner, reader, decoder, tensors, depths, self._skip)


def stored_pixels(config: GraphConfig, sampling: SamplingConfig, resizes: bool) -> StoredPixels:
    """What finishes samples that are stored decoded, for a CPU. A policy comes between it and the mirror."""
    augmented = sampling.augment is not None
    return StoredPixels("uint8" if config.dtype == "uint8" or augmented else "float32", resizes, mirrors=not augmented)


def must_resize(split: Split, sampling: SamplingConfig) -> bool:
    """Whether crop windows are of other sizes than the output."""
    if sampling.crop == "rrc":
        return True
    return bool(np.any(np.minimum(split.index.width, split.index.height) != sampling.resize))
