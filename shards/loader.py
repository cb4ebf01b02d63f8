"""Batches of torch tensors from shards.

    loader = Loader(split, batch_size=64, train=True)
    for images, labels in loader: ...      # one epoch; iterating again gives the next one

A feed loop (`shards/feed/loop.py`) keeps a few finished batches ready on a thread of its own. Every batch is a function
of (seeds, epoch, position) alone, so any epoch can be entered anywhere: the state of a loader is a cursor of two
integers, and others that guard it.
"""

import dataclasses
import threading
import weakref
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Literal, Never

import torch

from shards.common.arguments import checked_call, distinct_words, flag, whole_number
from shards.common.errors import ShardfeedError, UsageError
from shards.dataset import Split
from shards.dataset.sizes import pixels, side_before_crop
from shards.decode import MEAN, STD
from shards.decode.graph import Device, DType
from shards.defaults import OF_DATALOADER, one_split
from shards.feed.loop import Delivered
from shards.feed.runner import FeedRunner
from shards.feed.state import cursor_of, state_of
from shards.resolve import feed_config
from shards.sampler import EpochSampler
from shards.sampling.batch import Cursor
from shards.sampling.colour import Augment
from shards.sampling.crops import RRC_RATIO, RRC_SCALE, SIZE, Crop, Interpolation
from shards.sampling.order import BLOCK_SHARDS, Order
from shards.sampling.presets import Method
from shards.sampling.views import View


class Loader:
    """The batches of one rank.

    split: a split from `open_dataset`.
    batch_size: samples a step on this rank.
    train: a new order each epoch, random crops and flips, and no last batch that is not full. Otherwise the order of
        the split, the centre crop, and each sample exactly once over all ranks.
    size: side of the square output, in pixels.
    resize: shorter side before the crop, in pixels; by default in proportion 256 to 224 to `size`, but never more than
        the shorter side that the shards were made with.
    crop_pct: for crop="center", in place of `resize`: the share of the shorter side that `size` is, as timm has it.
    crop: "random" (Resize, RandomCrop; the default for training), "center" (Resize, CenterCrop) or "rrc"
        (RandomResizedCrop, as torchvision defines it).
    scale, ratio: for crop="rrc", from and to: the window's share of the image's area, and its width by its height.
    padding: for crop="random", black pixels added on each side of the resized image, as RandomCrop(size, padding) does;
        4 is usual for images of 32 pixels.
    interpolation: the filter of the resize, antialiased as Pillow's: "bilinear", or "bicubic" as most published weights
        want it.
    flip: mirror half of the images, drawn as the crops are; by default where `train` is set. Not for digits or text.
    augment: a policy applied after the crop: "trivial" (TrivialAugmentWide), "rand" (RandAugment), "auto" (AutoAugment
        for ImageNet), as torchvision defines them, "three" (DeiT III's 3-Augment), or "none". A sample's operations are
        drawn as its crop is.
    views: several views of each sample, which is read and decoded once: a list of `View`, or the name of a method whose
        views `shards/sampling/presets.py` has. Each has its own size, crop window, flip, filter and colour, drawn as
        crops are. In place of the arguments from size to augment.
    order: "global" (a permutation of the whole split each epoch; the default for training), "blocks" (shards in random
        order, a shuffle block of them read in sequence and shuffled together, for disks and network file systems that
        are slow at random reads) or "index" (as stored).
    window: shards in a shuffle block.
    weights: for training: the chance of each sample, (n,), in any unit, or "balanced", which makes all classes as
        likely. Samples are then drawn anew each epoch. By default an epoch holds each sample once.
    num_samples: for weights: how many an epoch draws, over all ranks; by default as many as the split has.
    replacement: for weights: an epoch may hold a sample more than once, each time with another crop.
    num_repeats: for training: an epoch holds this many copies of each of fewer samples (repeated augmentation), in the
        same global batch, on different ranks, each with another crop; as timm's RepeatAugSampler, an epoch has as many
        images as the split, rounded down to a multiple of 256 unless it has fewer.
    seed: of crops, flips and policies, and of the order where `order_seed` is None.
    order_seed: of the order of samples, to change the order or the augmentation alone.
    rank, world_size: the global rank and the number of ranks.
    device: where the batch lies: "cpu", "gpu", or "auto", a GPU if there is one.
    device_id: the number of the CUDA device, for "gpu".
    decode: what decodes JPEGs for a GPU: "cpu" (libjpeg-turbo; pixels cross the bus as bytes, the rest is the GPU's
        work), "region" (the GPU's cores, only the window), "hardware" (its JPEG engines, whole images), "hybrid"
        (engines and cores share the windows) or "auto": "cpu" where this rank has cores enough for it, otherwise
        "hardware" where nvJPEG finds engines, and "region" elsewhere.
    hw_decoder_load: for "hardware" and "hybrid", the share of images that goes to the engines, 0 to 1; None leaves it
        to DALI.
    fast_idct: where a CPU decodes, libjpeg-turbo's faster and less exact transform (docs/feeding.md has its cost).
    dtype: "float32" or, on a GPU, "float16": normalised by `mean` and `std`; or "uint8": pixels.
    mean, std: of red, green and blue in [0, 1]: a value is (pixel / 255 - mean) / std; by default ImageNet's.
    threads: decoding threads; by default the cores that this process may use, divided by the ranks on this machine,
        and one more, which fills the gaps between batches. Stored pixels on a CPU need no decoding: these threads read
        and finish them, one a core.
    drop_last: leave out a last batch that is not full; by default where `train` is set.
    check: "crc" compares every sample with its CRC-32, "none" only the first sample of each shard. "auto" is "crc" for
        JPEGs, where it costs less than 1%, and with on_error="skip" or "omit". Stored pixels are then read whole, not
        only the rows of the crop window.
    on_error: what becomes of a damaged sample, that is one that cannot be read, fetched or decoded, or whose CRC-32 is
        wrong. "raise": it ends the iteration. "skip": the next one that is whole takes its place. "omit": its batch
        comes without it, and may even be empty; for validation, where a copy would falsify the accuracy. `skipped`
        counts them.
    ids: yield (images, labels, ids) instead; `split.keys()[ids]` are the names of the samples.
    keys: yield dicts instead, with these names for the parts of a batch: ("pixel_values", "labels"), and a third one
        for ids.

    Yields (images, labels): images (B, 3, size, size), contiguous float32 on a CPU, otherwise with channels-last
    strides, and with `views` a list of such, one for each single view; labels (B,) int64; both on the device; ids (B,)
    int64 on the CPU, rows of `split.index`.

    Raises UsageError for arguments that do not fit each other or the split, and ShardfeedError for shards that cannot
    be read. A damaged sample ends the iteration with a ShardfeedError that names it.
    """

    # Accelerate's skip_first_batches, and HF's Trainer by it, makes a DataLoader with the attributes of a loader. With
    # this one it gets as far as the sampler, which says what to do instead.
    prefetch_factor = None

    @checked_call("Loader", OF_DATALOADER)
    def __init__(
        self,
        split: Split,
        *,
        batch_size: int,
        train: bool,
        size: int = SIZE,
        resize: int | None = None,
        crop_pct: float | None = None,
        crop: Crop | None = None,
        scale: tuple[float, float] = RRC_SCALE,
        ratio: tuple[float, float] = RRC_RATIO,
        padding: int = 0,
        interpolation: Interpolation = "bilinear",
        flip: bool | None = None,
        augment: Augment | Literal["none"] = "none",
        views: Sequence[View] | Method | None = None,
        order: Order | None = None,
        window: int = BLOCK_SHARDS,
        weights: Any = None,
        num_samples: int | None = None,
        replacement: bool = True,
        num_repeats: int = 1,
        seed: int = 0,
        order_seed: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        device: Device | Literal["auto"] = "cpu",
        device_id: int = 0,
        decode: Literal["auto", "cpu", "region", "hardware", "hybrid"] = "auto",
        hw_decoder_load: float | None = None,
        fast_idct: bool = False,
        dtype: DType = "float32",
        mean: tuple[float, float, float] = MEAN,
        std: tuple[float, float, float] = STD,
        threads: int | None = None,
        drop_last: bool | None = None,
        check: Literal["auto", "crc", "none"] = "auto",
        on_error: Literal["raise", "skip", "omit"] = "raise",
        ids: bool = False,
        keys: Sequence[str] | None = None,
    ) -> None:
        # Every argument by its name: feed_config takes no other, and none may be forgotten.
        given = {name: value for name, value in locals().items() if name not in ("self", "split", "ids", "keys")}
        self._split = split = one_split(split)
        config = feed_config(split, **given)
        self._share, self._samples = config.sampling.share, config.sampling.draw.length(len(split))
        self._omit, self._ids = on_error == "omit", flag("ids", ids)
        self._keys = None if keys is None else distinct_words("keys", keys, 3 if self._ids else 2)
        self._feed = FeedRunner(split, config)
        # Runs when the loader is freed and, before Python ends threads, when Python exits.
        self._finalizer = weakref.finalize(self, self._feed.close)
        self._crop_pct = crop_pct
        self._cursor = Cursor(0, 0)
        self._entered = False
        self._moves = 0  # how often the cursor was set by the user
        self._taking = threading.Lock()
        self._skipped = 0

    def __repr__(self) -> str:
        share, sampling, graph = self._share, self._feed.config.sampling, self._feed.config.graph
        return (
            f"<Loader of {self._split!r}: batches of {share.batch_size}, rank {share.rank} of {share.world_size}, "
            f"{f'{len(sampling.views)} views' if sampling.views else f'{sampling.crop} crop'} "
            f"of {sampling.size} pixels{' at most' if sampling.views else ''}, {graph.dtype} on the {graph.device}>"
        )

    def __len__(self) -> int:
        """Steps of this rank in a whole epoch."""
        return self._share.steps(self._samples)

    def __iter__(self) -> Iterator[Any]:
        """The rest of the current epoch: all of it, unless `load_state_dict` put the loader in its middle.

        An iteration that is left early ends its epoch: the next one gives the next epoch.
        """
        if self._entered:
            self.set_epoch(self._cursor.epoch + 1)
        self._entered = True
        epoch, moves = self._cursor.epoch, self._moves
        for _ in range(self._share.steps(self._samples, self._cursor.position)):
            delivered = self._take()
            self._cursor = Cursor(epoch, self._cursor.position + self._share.global_batch)
            self._skipped += len(delivered.replaced)
            if self._omit:
                delivered = delivered.without_replaced()
            batch = (*delivered.tensors, torch.tensor(delivered.ids)) if self._ids else delivered.tensors
            yield batch if self._keys is None else dict(zip(self._keys, batch, strict=True))
            if self._moves != moves:
                raise ShardfeedError("the loader was moved to another place while it was iterated over")
        self.set_epoch(epoch + 1)

    def _take(self) -> Delivered:
        if not self._finalizer.alive:
            raise ShardfeedError("the loader is closed")
        if not self._taking.acquire(blocking=False):
            raise ShardfeedError("two threads iterate over one loader: take its batches on one thread")
        try:
            return self._feed.take(self._cursor)
        finally:
            self._taking.release()

    @property
    def samples(self) -> int:
        """Samples that a whole epoch holds over all ranks: those of the split, unless they are drawn otherwise."""
        return self._samples

    @property
    def dataset(self) -> Split:
        """The split, for code that asks a loader for `len(loader.dataset)`."""
        return self._split

    @property
    def batch_size(self) -> int:
        """Samples of a step on this rank."""
        return self._share.batch_size

    @property
    def drop_last(self) -> bool:
        """Whether a last global batch that is not full is left out."""
        return self._share.drop_last

    @property
    def sampler(self) -> EpochSampler:
        """For trainers that call `loader.sampler.set_epoch(epoch)`; it yields no indices."""
        return EpochSampler(self)

    @property
    def batch_sampler(self) -> EpochSampler:
        """For trainers that call `loader.batch_sampler.sampler.set_epoch(epoch)`; it yields no batches."""
        return EpochSampler(self)

    @property
    def epoch(self) -> int:
        """The running epoch; between two epochs, the one that the next iteration gives."""
        return self._cursor.epoch

    def set_epoch(self, epoch: int) -> None:
        """The next iteration gives epoch `epoch`: from its beginning, unless the loader was just put inside it.

        An iteration that is running raises ShardfeedError at its next batch.
        Trainers load a loader's state and then announce the epoch that they resume. So a position that
        `load_state_dict` has set stays, as long as no batch was taken since and `epoch` is that state's epoch.
        """
        epoch = whole_number("epoch", epoch, 0)
        if self._entered or epoch != self._cursor.epoch:
            self._move(epoch, 0)

    def set_size(self, size: int, resize: int | None = None) -> None:
        """The next iteration gives images of another size (and zoom, see the class): for progressive resizing.

        To be called between epochs. The feed loop begins anew, in milliseconds.
        """
        if self._feed.config.sampling.views:
            raise UsageError("views have sizes of their own: make another loader, and load this one's state into it")
        if self._cursor.position:
            raise UsageError("the size can change between epochs only")
        size, resize = pixels("size", size), None if resize is None else pixels("resize", resize)
        crop_pct = self._crop_pct if resize is None else None
        chosen = side_before_crop(self._split, size, resize, self._feed.config.sampling.crop, crop_pct)
        self._feed.change(dataclasses.replace(self._feed.config.sampling, size=size, resize=chosen))

    @property
    def skipped(self) -> int:
        """Damaged samples so far, each once an epoch, that were replaced or omitted."""
        return self._skipped

    def gpu_wait(self) -> float:
        """Seconds that the GPU has waited for batches since the last call, as far as that is over; 0 on a CPU.

        The host sees only its own waits: a batch can be handed over while the GPU still decodes it.
        """
        return self._feed.gpu_wait()

    def state_dict(self) -> dict[str, int]:
        """Where the loader stands: another loader that loads this goes on with the next batch."""
        return state_of(self._split, self._feed.config.sampling, self._cursor)

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Goes on where `state` was taken, also with another batch size or number of ranks.

        The next iteration gives the samples of that epoch that were not yet delivered. Raises UsageError for the state
        of other samples, another seed or order.
        """
        cursor = cursor_of(state, self.state_dict(), self._samples)
        self._move(cursor.epoch, cursor.position)

    def _move(self, epoch: int, position: int) -> None:
        self._cursor, self._entered, self._moves = Cursor(epoch, position), False, self._moves + 1

    def __getitem__(self, index: Any) -> Never:
        raise UsageError(
            "a loader gives whole batches and reads ahead by itself: iterate over it, without a DataLoader around it"
        )

    def __reduce__(self) -> Never:
        raise UsageError(
            "a loader has threads and open files and cannot be pickled: make one in each process, and pass on its "
            "state_dict()"
        )

    def close(self) -> None:
        """Ends the threads; the loader gives no more batches."""
        self._finalizer()

    def __enter__(self) -> "Loader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
