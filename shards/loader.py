"""Batches of torch tensors from shards.

    loader = Loader(split, batch_size=64, train=True)
    for images, labels in loader: ...      # one epoch; iterating again gives the next one

A feed loop (`shards/feed/loop.py`) keeps a few finished batches ready on a thread of its own. Every batch is a function
of (seed, epoch, position) alone, so the state of a loader is two integers, and any epoch can be entered anywhere.
"""

import dataclasses
import os
import threading
import weakref
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Literal, cast

import torch

from shards.common.errors import ShardfeedError, UsageError
from shards.dataset import Split
from shards.decode.graph import Decode, Device, DType, GraphConfig
from shards.decode.tensors import Batch
from shards.feed.local import LocalShards
from shards.feed.loop import THREADS, Delivered, FeedLoop, must_resize
from shards.feed.plan import SamplingConfig
from shards.feed.read import Shards
from shards.remote.prefetch import RemoteShards
from shards.sampling.batch import Cursor
from shards.sampling.crops import CROPS, Crop
from shards.sampling.order import BLOCK_SHARDS, ORDERS, Order, Share
from shards.sampling.policies import POLICIES, Policy

# The reference recipe's zoom: Resize(256) before a crop of 224.
RESIZE, SIZE = 256, 224

# The fields of a loader's state that must match for a position to mean the same samples, in words.
GUARDS = {
    "samples": "a split of another size",
    "seed": "another seed",
    "order": "another order",
    "window": "another window",
}

# Compute capabilities of GPUs with JPEG engines, by NVIDIA's nvJPEG documentation: A100 and A30, H100 and H200, B200.
JPEG_ENGINES = frozenset({(8, 0), (9, 0), (10, 0)})


class Loader:
    """The batches of one rank.

    split: as `open_dataset` gives it.
    batch_size: samples a step on this rank.
    train: shuffle anew each epoch, random crops and flips, and leave out a last batch that is not
        full. Without it: the split's own order, the centre crop, and each sample exactly once over
        all ranks.
    size: side of the square output, in pixels.
    resize: shorter side before the crop, in pixels; by default in proportion 256 to 224 to `size`,
        but never more than the shorter side that the shards were made with.
    crop: "random" (Resize, RandomCrop: what train means by itself), "center" (Resize, CenterCrop) or
        "rrc" (RandomResizedCrop, as torchvision defines it).
    augment: a policy applied after the crop: "trivial" (TrivialAugmentWide), "rand" (RandAugment), "auto" (AutoAugment
        for ImageNet), as torchvision defines them, or "none". What each sample gets is drawn as its crop is.
    order: "global" (a permutation of the whole split each epoch: what train means by itself), "blocks"
        (shards in random order, read in sequence a window of them at a time and shuffled inside it, for
        disks and network file systems that are slow at random reads) or "index" (as stored).
    window: shards that "blocks" mixes.
    seed: of order, crops and flips.
    rank, world_size: the global rank and the number of ranks.
    device: where the batch lies: "cpu", "gpu", or "auto", a GPU if there is one.
    device_id: the CUDA device, for "gpu".
    decode: who decodes JPEGs for a GPU: "cpu" (libjpeg-turbo; pixels cross the bus as bytes, the rest is the GPU's
        work), "region" (the GPU's cores, only the window), "hardware" (its JPEG engines, whole images) or "auto",
        which is "hardware" on GPUs known to have engines and "region" on others.
    hw_decoder_load: for "hardware", the share of images that goes to the engines, 0 to 1; None leaves it to DALI.
    fast_idct: where a CPU decodes, libjpeg-turbo's faster and less exact transform (docs/feeding.md has its cost).
    dtype: "float32" or, on a GPU, "float16": normalised by ImageNet's mean and standard deviation;
        "uint8": the pixels.
    threads: decoding threads; by default the cores this process may use, divided by the ranks on
        this machine, and one more, which fills the gaps between batches. Of stored pixels on a CPU, which need no
        decoding, threads that read and finish; there are no gaps, and no more than the cores.
    drop_last: where it is not to follow `train`.
    on_error: "raise", or "skip": a sample that cannot be read, or whose checksum is wrong, is replaced by
        the next one that is whole, and counted in `skipped`.

    Yields (images, labels): images (B, 3, size, size), contiguous float32 on a CPU, otherwise with
    channels-last strides; labels (B,) int64; both on the device.

    Raises UsageError for arguments that do not fit each other or the split, and ShardfeedError for
    shards that cannot be read; a sample that cannot be decoded ends the iteration with a
    ShardfeedError that names it.
    """

    def __init__(
        self,
        split: Split,
        *,
        batch_size: int,
        train: bool,
        size: int = SIZE,
        resize: int | None = None,
        crop: Crop | None = None,
        augment: Policy | Literal["none"] = "none",
        order: Order | None = None,
        window: int = BLOCK_SHARDS,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        device: Device | Literal["auto"] = "cpu",
        device_id: int = 0,
        decode: Literal["auto", "cpu", "region", "hardware"] = "auto",
        hw_decoder_load: float | None = None,
        fast_idct: bool = False,
        dtype: DType = "float32",
        threads: int | None = None,
        drop_last: bool | None = None,
        on_error: Literal["raise", "skip"] = "raise",
    ) -> None:
        self._split = split
        self._share = Share(batch_size, rank, world_size, train if drop_last is None else drop_last)
        if self._share.drop_last and len(split) < self._share.global_batch:
            raise UsageError(
                f"the split {split.name} has {len(split)} samples, fewer than one global batch of "
                f"{self._share.global_batch}: choose a smaller batch, or drop_last=False"
            )
        if crop is not None and crop not in CROPS:
            raise UsageError(f"crop must be one of {', '.join(CROPS)}, not {crop!r}")
        if order is not None and order not in ORDERS:
            raise UsageError(f"order must be one of {', '.join(ORDERS)}, not {order!r}")
        if on_error not in ("raise", "skip"):
            raise UsageError(f"on_error must be raise or skip, not {on_error!r}")
        if augment != "none" and augment not in POLICIES:
            raise UsageError(f"augment must be none, {', '.join(POLICIES)}, not {augment!r}")
        policy = None if augment == "none" else augment
        if window < 1:
            raise UsageError(f"window must be at least 1 shard, not {window}")
        sampling = SamplingConfig(
            share=self._share,
            seed=seed,
            order=order or ("global" if train else "index"),
            crop=crop or ("random" if train else "center"),
            flip=train,
            resize=_shorter_side(split, size, resize, crops=crop != "rrc"),
            size=size,
            block_shards=window,
            augment=policy,
        )
        if device == "auto":
            device = "gpu" if torch.cuda.is_available() else "cpu"
        decoder = _decoder(split, decode, device, device_id)
        graph = GraphConfig(
            device=device,
            decode=decoder,
            dtype=dtype,
            batch_size=batch_size,
            resize=device == "gpu" and must_resize(split, sampling),
            threads=default_threads(decoder == "raw" and device == "cpu") if threads is None else threads,
            device_id=device_id if device == "gpu" else None,
            augment=policy if device == "gpu" else None,
            fast_idct=fast_idct,
            hw_decoder_load=hw_decoder_load,
        )
        self._feed = _Feed(split, sampling, graph, skip_damaged=on_error == "skip")
        # Runs when the loader is freed and, before Python ends threads, when Python exits.
        self._finalizer = weakref.finalize(self, self._feed.close)
        self._cursor = Cursor(0, 0)
        self._entered = False
        self._skipped = 0

    def __len__(self) -> int:
        """Steps of this rank in a whole epoch."""
        return self._share.steps(len(self._split))

    def __iter__(self) -> Iterator[Batch]:
        """The rest of the current epoch: all of it, unless `load_state_dict` put the loader in its middle.

        An iteration that was left early counts as its epoch: the next one gives the next epoch.
        """
        if self._entered:
            self.set_epoch(self._cursor.epoch + 1)
        self._entered = True
        epoch = self._cursor.epoch
        for _ in range(self._share.steps(len(self._split), self._cursor.position)):
            if not self._finalizer.alive:
                raise ShardfeedError("the loader is closed")
            delivered = self._feed.take(self._cursor)
            self._cursor = Cursor(epoch, self._cursor.position + self._share.global_batch)
            self._skipped += delivered.replaced
            yield delivered.tensors
            if self._cursor.epoch != epoch:
                raise ShardfeedError("the loader was moved to another place while it was iterated over")
        self.set_epoch(epoch + 1)

    @property
    def epoch(self) -> int:
        """The epoch that is being iterated over, or that the next iteration gives."""
        return self._cursor.epoch

    def set_epoch(self, epoch: int) -> None:
        """The next iteration gives epoch `epoch` from its beginning."""
        if epoch < 0:
            raise UsageError(f"epoch must be 0 or more, not {epoch}")
        self._cursor, self._entered = Cursor(epoch, 0), False

    def set_size(self, size: int, resize: int | None = None) -> None:
        """The next iteration gives images of another size (and zoom, see the class): for progressive resizing.

        To be called between epochs. The first size that the stored images do not have makes the graph anew, in
        milliseconds; after that the size is an argument of each batch.
        """
        if self._cursor.position:
            raise UsageError("the size can change between epochs only")
        chosen = _shorter_side(self._split, size, resize, crops=self._feed.sampling.crop != "rrc")
        self._feed.change(dataclasses.replace(self._feed.sampling, size=size, resize=chosen))

    @property
    def skipped(self) -> int:
        """Samples delivered so far in the place of damaged ones."""
        return self._skipped

    def state_dict(self) -> dict[str, int]:
        """Where the loader stands: with this, another one goes on with the batch after the last one taken."""
        sampling = self._feed.sampling
        return {
            "seed": sampling.seed,
            "samples": len(self._split),
            "order": ORDERS.index(sampling.order),
            "window": sampling.block_shards if sampling.order == "blocks" else 0,
            "epoch": self._cursor.epoch,
            "position": self._cursor.position,
        }

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Goes on where `state` was taken, also with another batch size or number of ranks.

        The next iteration gives the samples of that epoch which were not yet seen. Raises UsageError
        for the state of another data set, seed or order.
        """
        own = self.state_dict()
        missing = own.keys() - state.keys()
        if missing:
            raise UsageError(f"not the state of a loader: it has no {', '.join(sorted(missing))}")
        for name, what in GUARDS.items():
            if state[name] != own[name]:
                raise UsageError(f"the loader's state is of {what}: {name} is {state[name]} there and {own[name]} here")
        self._cursor, self._entered = Cursor(state["epoch"], state["position"]), False

    def close(self) -> None:
        """Ends the threads; the loader gives no more batches."""
        self._finalizer()

    def __enter__(self) -> "Loader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Feed:
    """The open shards and the loop that feeds from them. It knows nothing of the loader, so the loader can be freed."""

    def __init__(self, split: Split, sampling: SamplingConfig, graph: GraphConfig, skip_damaged: bool) -> None:
        self.sampling = sampling
        self._split = split
        self._graph = graph
        self._skip_damaged = skip_damaged
        self._shards: Shards = open_shards(split)
        self._loop: FeedLoop | None = None

    def take(self, cursor: Cursor) -> Delivered:
        """The batch at `cursor`: of the running loop where it comes next, of a new loop where not."""
        if self._loop is None or self._loop.cursor != cursor:
            self._stop()
            # Batches are handed over, and their memory is freed, in the order of the consumer's stream.
            on_gpu = self._graph.device == "gpu"
            stream: Any = torch.cuda.current_stream(self._graph.device_id) if on_gpu else None
            self._loop = FeedLoop(
                self._split,
                self._shards,
                self.sampling,
                self._graph,
                cursor,
                skip_damaged=self._skip_damaged,
                stream=stream,
            )
        return self._loop.take()

    def change(self, sampling: SamplingConfig) -> None:
        """From the next batch on, samples as `sampling` says."""
        self._stop()
        self.sampling = sampling
        if self._graph.device == "gpu":
            self._graph = dataclasses.replace(self._graph, resize=must_resize(self._split, sampling))

    def close(self) -> None:
        """Ends the loop and closes the shards."""
        if threading.current_thread().name.startswith(THREADS):
            # The garbage collector found the loader on a thread of a loader, which would wait for itself.
            threading.Thread(target=self._close, name="close").start()
        else:
            self._close()

    def _close(self) -> None:
        self._stop()
        self._shards.close()

    def _stop(self) -> None:
        if self._loop is not None:
            self._loop.stop()
        self._loop = None


def open_shards(split: Split) -> Shards:
    """The shards of a split, open for reading: files of this machine, or behind a URL."""
    if split.origin is not None:
        return RemoteShards(split.supply())
    return LocalShards(split.shard_paths, [shard.bytes for shard in split.info.shards])


def default_threads(raw: bool = False) -> int:
    """Threads of a rank: its share of the cores this process may use, and one more, except for `raw` (see `Loader`)."""
    ranks_here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, len(os.sched_getaffinity(0)) // ranks_here) + (0 if raw else 1)


def _decoder(split: Split, wanted: str, device: Device, device_id: int) -> Decode:
    """What decodes the split's samples, in the terms of the graph. Raises UsageError for what cannot be had."""
    if wanted not in ("auto", "cpu", "region", "hardware"):
        raise UsageError(f"decode must be auto, cpu, region or hardware, not {wanted!r}")
    if split.manifest.settings.encoding == "raw":
        if wanted not in ("auto", "cpu"):
            raise UsageError(f"the samples of {split.root} are stored decoded: decode={wanted!r} does not apply")
        return "raw"
    if wanted != "auto" or device == "cpu":
        return "cpu" if wanted == "auto" else cast(Decode, wanted)
    return "hardware" if torch.cuda.get_device_capability(device_id) in JPEG_ENGINES else "region"


def _shorter_side(split: Split, size: int, resize: int | None, crops: bool) -> int:
    """The shorter side before the crop. Raises UsageError for a crop that does not fit into it, where one is cut."""
    if size < 1:
        raise UsageError(f"size must be at least 1 pixel, not {size}")
    stored = split.manifest.settings.short_side
    chosen = round(size * RESIZE / SIZE) if resize is None else resize
    if resize is None and stored is not None:
        chosen = min(chosen, stored)
    if crops and size > chosen:
        raise UsageError(
            f"a crop of {size} pixels does not fit into images whose shorter side is {chosen}: "
            "choose a smaller size or a larger resize"
        )
    return chosen
