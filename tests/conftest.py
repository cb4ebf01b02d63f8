"""Fixtures that several test files share: images and data sets made in memory, and the real ones where they are."""

import os

# Before torch is loaded: its threads then sleep while they wait, and leave the cores to those that decode.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import io
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import hypothesis
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from shards.dataset import Split, open_dataset
from shards.format.index import Index
from shards.format.layout import INDEX, Encoding, sample_key, split_dir
from shards.format.manifest import FORMAT_VERSION, Manifest, Settings, SplitInfo, index_info
from shards.format.tar import Sample, write_shard

# A shell that runs the tests in the background, or nohup, has these ignored, and processes that tests start and
# then stop by a signal would inherit that.
for _number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL)

# An example may be slow on a machine that does other things too; that is no failure.
hypothesis.settings.register_profile("shardfeed", deadline=None)
hypothesis.settings.load_profile("shardfeed")

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"

MakeSplit = Callable[..., Split]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `gpu` are skipped, with the reason, where there is no GPU."""
    import torch

    if not torch.cuda.is_available():
        skip = pytest.mark.skip(reason="needs a CUDA GPU, and torch sees none")
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(skip)


def photo(height: int, width: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """An RGB image (height, width, 3) with the 1/f spectrum of a photograph: smooth areas, texture and edges."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1.0
    planes = []
    for _ in range(3):
        phase = np.exp(2j * np.pi * rng.random(frequency.shape))
        plane = np.fft.irfft2(phase / frequency, s=(height, width))
        planes.append(plane / plane.std())
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
    infos, parts = [], []
    for number, start in enumerate(range(0, len(images), shard_size)):
        samples = []
        for row in range(start, min(start + shard_size, len(images))):
            width, height = Image.open(io.BytesIO(images[row])).size
            samples.append(Sample(sample_key(row), images[row], labels[row], width, height))
        info, index = write_shard(root, name, number, samples, encoding)
        infos.append(info)
        parts.append(index)
    Index.concatenate(parts).write(split_dir(root, name) / INDEX)
    Manifest(
        format_version=FORMAT_VERSION,
        program_version="test",
        source="test",
        fingerprint="test",
        class_names=tuple(f"class {i}" for i in range(classes)),
        settings=Settings(short_side=short_side, shard_size=shard_size, encoding=encoding),
        splits={name: SplitInfo(len(images), 0, tuple(infos), index=index_info(split_dir(root, name) / INDEX))},
    ).write(root)
    return open_dataset(root)[name]


@pytest.fixture(scope="session")
def small_split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    """29 images of 40 to 64 pixels, shorter side 40, in 5 shards."""
    sizes = [(40, 40 + i % 25) if i % 2 else (40 + i % 13, 40) for i in range(29)]
    images = [jpeg(photo(height, width, seed)) for seed, (height, width) in enumerate(sizes)]
    return write_split(tmp_path_factory.mktemp("small"), images, short_side=40)


@pytest.fixture(scope="session")
def real_images() -> list[bytes]:
    """60 real ImageNet JPEGs, as they are; skips where they are absent."""
    import pyarrow.parquet as pq

    files = sorted((SHARED / "imagenet-sample" / "data").glob("validation-*.parquet"))
    if not files:
        pytest.skip("the real sample images are not on this machine")
    rows = pq.read_table(files[0], columns=["image"]).slice(0, 60).column("image")
    return [row["bytes"].as_py() for row in rows]
