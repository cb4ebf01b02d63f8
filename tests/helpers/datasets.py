"""Images and small data sets, made in memory."""

import io
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from shards.dataset import Split, open_dataset
from shards.format.index import Index
from shards.format.layout import INDEX, Encoding, sample_key, split_dir
from shards.format.manifest import FORMAT_VERSION, Manifest, Settings, SplitInfo, index_info
from shards.format.tar import Sample, write_shard


def photo(height: int, width: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """An RGB image (height, width, 3) with the 1/f spectrum of a photograph: smooth areas, texture and edges."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1.0
    planes = []
    for _ in range(3):
        phase = np.exp(2j * np.pi * rng.random(frequency.shape))
        plane = np.fft.irfft2(phase / frequency, s=(height, width))
        planes.append(plane / (plane.std() or 1))  # of one pixel: 0
    pixels = 110 + 50 * np.stack(planes, axis=-1)
    top, left = rng.integers(0, max(1, height // 2)), rng.integers(0, max(1, width // 2))
    pixels[top : top + height // 3, left : left + width // 3] += rng.integers(-80, 80, 3)
    return np.asarray(np.clip(pixels, 0, 255), np.uint8)


def jpeg(pixels: npt.NDArray[np.uint8], quality: int = 90) -> bytes:
    """`pixels` as a baseline JPEG with halved chroma, as most cameras and Pillow write them."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return file.getvalue()


def decoded(data: bytes) -> npt.NDArray[np.uint8]:
    """Pillow's RGB pixels (height, width, 3) of an encoded image."""
    return np.array(Image.open(io.BytesIO(data)).convert("RGB"))


def coloured_jpeg(label: int, side: int, seed: int) -> bytes:
    """A JPEG that shows its label by its brightness, under noise."""
    noise = np.random.default_rng(seed).normal(60 * label + 40, 20, (side, side, 3))
    return jpeg(noise.clip(0, 255).astype(np.uint8))


def no_files(shards: object, numbers: npt.NDArray[np.int32]) -> AbstractContextManager[npt.NDArray[np.intc]]:
    """In place of `LocalShards.files`: no shard is an open file, so each sample is read by `preadv`."""
    return nullcontext(np.full(len(numbers), -1, np.intc))


def write_split(
    root: Path,
    images: Sequence[bytes],
    labels: Sequence[int] | None = None,
    *,
    short_side: int | None,
    shard_size: int = 7,
    classes: int = 10,
    name: str = "train",
    encoding: Encoding = "jpeg",
) -> Split:
    """A data set of one split with these image files, in this order; labels are 0, 1, 2, ... unless given."""
    labels = [i % classes for i in range(len(images))] if labels is None else labels
    settings = Settings(short_side=short_side, shard_size=shard_size, encoding=encoding)
    return _write(root, {name: list(zip(images, labels, strict=True))}, settings, classes)[name]


def write_dataset(root: Path, sizes: Mapping[str, int], classes: int = 3, side: int = 16) -> Path:
    """A data set in `root`, one shard a split, with the given number of images in each; labels are 0, 1, 2, ..."""
    splits = {
        name: [(coloured_jpeg(i % classes, side, seed=i), i % classes) for i in range(size)]
        for name, size in sizes.items()
    }
    _write(root, splits, Settings(short_side=side), classes)
    return root


def _write(
    root: Path, splits: Mapping[str, Sequence[tuple[bytes, int]]], settings: Settings, classes: int
) -> dict[str, Split]:
    """The data set of these splits, each of pairs of an image file and a label."""
    infos = {}
    for name, rows in splits.items():
        shards, parts = [], []
        for number, start in enumerate(range(0, len(rows), settings.shard_size)):
            samples = []
            for row, (image, label) in enumerate(rows[start : start + settings.shard_size], start):
                width, height = Image.open(io.BytesIO(image)).size
                samples.append(Sample(sample_key(row), image, label, width, height))
            info, part = write_shard(root, name, number, samples, settings.encoding)
            shards.append(info)
            parts.append(part)
        path = split_dir(root, name) / INDEX
        Index.concatenate(parts).write(path)
        infos[name] = SplitInfo(len(rows), 0, tuple(shards), index=index_info(path))
    Manifest(
        format_version=FORMAT_VERSION,
        program_version="test",
        source="test",
        fingerprint="test",
        class_names=tuple(f"class {i}" for i in range(classes)),
        settings=settings,
        splits=infos,
    ).write(root)
    return open_dataset(root)
