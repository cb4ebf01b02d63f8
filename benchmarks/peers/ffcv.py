"""FFCV, as its documentation recommends: a .beton file, numba-compiled operations, random order, OS page cache.

The .beton holds the same bytes as the shards (with raw shards, their pixels). FFCV decodes the whole image with
libjpeg-turbo's fast, less accurate DCT. Its own decoders resize what they crop. The window of RandomCrop already has
the size of the output, so nothing is resized there; six lines extend its decoder to draw such windows.
"""

import contextlib
import io
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ffcv.fields.rgb_image as rgb_image
import numpy as np
import numpy.typing as npt
from ffcv.fields import IntField, RGBImageField
from ffcv.fields.basics import IntDecoder
from ffcv.fields.decoders import RandomResizedCropRGBImageDecoder
from ffcv.loader import Loader, OrderOption
from ffcv.reader import Reader
from ffcv.transforms import NormalizeImage, RandomHorizontalFlip, Squeeze, ToTensor, ToTorchImage
from ffcv.writer import DatasetWriter
from PIL import Image

from benchmarks.measure.settings import BatchSpec
from benchmarks.processes.task import Batch, Peer, PeerTask, own_format, stored_bytes
from benchmarks.processes.threads import end
from shards.common.versions import version
from shards.dataset import Split
from shards.decode import MEAN, STD

BATCHES_AHEAD = 3  # its default
# Samples in one epoch: more than a turn takes of the smallest images.
ENDLESS = 1 << 22


def peer(task: PeerTask) -> Peer:
    """Writes the .beton unless it exists."""
    raw = task.open_split().manifest.settings.encoding == "raw"
    beton = own_format(task, "ffcv", lambda path: write(task.open_split(), path, raw))
    # Once: compiling takes ten seconds. A turn that ends with the first epoch is to read every image once.
    loader = make_loader(beton, task.batch, task.threads, ENDLESS if task.reads == "memory" else 1)
    return Peer(
        open=lambda: batches(loader),
        settings={
            "ffcv": version("ffcv"),
            "numba": version("numba"),
            "order": "RANDOM",
            "os_cache": True,
            "batches_ahead": BATCHES_AHEAD,
            "dct": "none (raw pixels)" if raw else "fast",
            "resize": "none" if task.batch.crop == "random" else "OpenCV INTER_AREA",
        },
        depth=BATCHES_AHEAD,
    )


class _Encoded(np.ndarray[Any, Any]):
    """An image for FFCV's writer with its encoded bytes, which the writer stores: nothing is encoded again."""

    encoded: npt.NDArray[np.uint8]


class _Samples:
    def __init__(self, split: Split, raw: bool) -> None:
        self._bytes, self._index, self._raw = stored_bytes(split), split.index, raw

    def __len__(self) -> int:
        return len(self._bytes)

    def __getitem__(self, row: int) -> tuple[npt.NDArray[np.uint8], int]:
        label = int(self._index.label[row])
        if self._raw:
            return np.array(Image.open(io.BytesIO(self._bytes[row].tobytes()))), label
        shape = (int(self._index.height[row]), int(self._index.width[row]), 3)
        image = np.zeros(shape, np.uint8).view(_Encoded)
        image.encoded = self._bytes[row]
        return image, label


def write(split: Split, path: Path, raw: bool) -> None:
    """Writes the images and labels of `split` to a .beton file, as JPEGs byte for byte or as pixels."""
    rgb_image.encode_jpeg = lambda image, quality: image.encoded
    fields = {"image": RGBImageField(write_mode="raw" if raw else "jpg"), "label": IntField()}
    DatasetWriter(str(path), fields, num_workers=2).from_indexed_dataset(_Samples(split, raw))


class RandomCropDecoder(RandomResizedCropRGBImageDecoder):  # type: ignore[misc]
    """torchvision's RandomCrop: a window of the output's size, anywhere."""

    @property
    def get_crop_generator(self) -> Callable[..., Any]:
        size = self.output_size[0]

        def window(height: int, width: int, scale: Any, ratio: Any) -> tuple[int, int, int, int]:
            # numba knows only numpy's old generator.
            top = np.random.randint(0, height - size + 1)  # noqa: NPY002
            left = np.random.randint(0, width - size + 1)  # noqa: NPY002
            return top, left, size, size

        return window


def make_loader(beton: Path, batch: BatchSpec, threads: int, samples: int) -> Any:
    """A loader with epochs of at least so many samples: no gap between epochs counts against a small data set."""
    logging.getLogger("numba").setLevel(logging.ERROR)
    decoder = RandomCropDecoder if batch.crop == "random" else RandomResizedCropRGBImageDecoder
    image: list[Any] = [decoder((batch.size, batch.size)), RandomHorizontalFlip()]
    if batch.dtype == "float32":
        image.append(NormalizeImage(255 * np.array(MEAN), 255 * np.array(STD), np.float32))
    stored = int(Reader(str(beton)).num_samples)
    return Loader(
        str(beton),
        batch_size=batch.batch_size,
        num_workers=threads,
        order=OrderOption.RANDOM,
        os_cache=True,
        seed=batch.seed,
        batches_ahead=BATCHES_AHEAD,
        drop_last=True,
        indices=np.tile(np.arange(stored), -(-samples // stored)),
        pipelines={
            "image": [*image, ToTensor(), ToTorchImage()],
            "label": [IntDecoder(), ToTensor(), Squeeze()],
        },
    )


@contextlib.contextmanager
def batches(loader: Any) -> Iterator[Iterator[Batch]]:
    """Endless shuffled batches; ends the thread that makes them."""
    epochs: list[Any] = []

    def stream() -> Iterator[Batch]:
        while True:
            epochs[:] = [iter(loader)]
            yield from epochs[0]

    try:
        yield stream()
    finally:
        for epoch in epochs:
            # Its thread looks at the event where the queue stays full for half a second, and not with an epoch's end.
            epoch.terminate_event.set()
            end(epoch, epoch.output_queue)
            epoch.close()
