"""Contenders do the same work: what each delivers is compared with Pillow. Those not installed are skipped."""

import dataclasses
import json
import subprocess
from pathlib import Path

import datasets
import numpy as np
import numpy.typing as npt
import pytest

from benchmarks.measure.settings import BatchSpec, DType
from benchmarks.peers.roster import ROSTER, Entry
from benchmarks.processes.process import ROOT
from benchmarks.processes.task import PeerTask
from shards.dataset import Split
from shards.decode import MEAN, STD
from shards.sampling.crops import Crop
from tests.conftest import decoded, jpeg, photo, write_split
from tests.helpers import peer_batch

SIZE, CLASSES = 48, 10
IMAGES = [jpeg(photo(SIZE, SIZE, seed)) for seed in range(CLASSES)]
COLOURS = np.random.default_rng(0).integers(20, 236, (CLASSES, 3)).astype(np.uint8)
PLAIN = [jpeg(np.tile(colour, (SIZE, SIZE, 1))) for colour in COLOURS]
NEAR = 1.5  # of 255; the fast DCT is off by about one
LOADERS = [name for name, entry in ROSTER.items() if name != "turbojpeg" and entry.options.get("device") != "gpu"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Split:
    """Ten square photographs, one a class."""
    return write_split(tmp_path_factory.mktemp("photos"), IMAGES, short_side=SIZE, shard_size=5)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Split:
    """Ten images of one colour each, one a class."""
    return write_split(tmp_path_factory.mktemp("plain"), PLAIN, short_side=SIZE, shard_size=5)


def _source(root: Path, images: list[bytes]) -> str:
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=[f"class {i}" for i in range(CLASSES)])}
    )
    columns = {"image": [{"bytes": data, "path": None} for data in images], "label": list(range(len(images)))}
    datasets.DatasetDict({"train": datasets.Dataset.from_dict(columns, features=features)}).save_to_disk(root)
    return str(root)


def _batch(
    entry: Entry, split: Split, images: list[bytes], tmp_path: Path, size: int, crop: Crop, dtype: DType
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Pixels (n, size, size, 3) from 0 to 255, and labels (n,)."""
    spec = BatchSpec(batch_size=8, resize=SIZE, size=size, crop=crop, dtype=dtype)
    reason = entry.absence("jpeg", spec)
    if reason:
        pytest.skip(reason)
    source = _source(tmp_path / "source", images)
    # More than one thread or process: with FFCV, one is another program.
    task = PeerTask(str(split.root), "train", source, "image", "label", str(tmp_path), spec, 2, entry.options)
    file = tmp_path / "batch.npz"
    if entry.python is None:
        peer_batch.save(entry.module, task, file)
    else:
        text = json.dumps(dataclasses.asdict(task))
        words: list[str | Path] = [entry.python, "-m", "tests.helpers.peer_batch", entry.module, text, file]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
    batch = np.load(file)
    assert batch["images"].shape == (8, 3, size, size)
    assert batch["images"].dtype == dtype
    pixels = batch["images"].transpose(0, 2, 3, 1).astype(np.float64)
    return pixels if dtype == "uint8" else 255 * (pixels * STD + MEAN), batch["labels"]


def _apart(name: str, image: npt.NDArray[np.float64], expected: npt.NDArray[np.float64]) -> float:
    """The mean absolute difference. FFmpeg does not interpolate chroma, so there it is that of the brightness."""
    difference = image - expected
    if name == "spdl":
        difference = difference @ (0.299, 0.587, 0.114)
    return float(np.abs(difference).mean())


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
@pytest.mark.parametrize("name", LOADERS)
def test_pixels_are_those_of_the_stored_image_flipped_or_not(
    name: str, dtype: DType, photos: Split, tmp_path: Path
) -> None:
    pixels, labels = _batch(ROSTER[name], photos, IMAGES, tmp_path, SIZE, "random", dtype)
    for image, label in zip(pixels, labels, strict=True):
        expected = decoded(IMAGES[label]).astype(np.float64)
        assert min(_apart(name, image, each) for each in (expected, expected[:, ::-1])) < NEAR


@pytest.mark.slow
@pytest.mark.parametrize("name", LOADERS)
def test_random_resized_crops_keep_colours(name: str, plain: Split, tmp_path: Path) -> None:
    pixels, labels = _batch(ROSTER[name], plain, PLAIN, tmp_path, 32, "rrc", "float32")
    for image, label in zip(pixels, labels, strict=True):
        assert np.abs(image - COLOURS[label]).max() < 5, name


@pytest.mark.slow
@pytest.mark.parametrize("name", LOADERS)
def test_random_crops_are_windows_of_the_image(name: str, photos: Split, tmp_path: Path) -> None:
    size = SIZE - 2
    pixels, labels = _batch(ROSTER[name], photos, IMAGES, tmp_path, size, "random", "uint8")
    for image, label in zip(pixels, labels, strict=True):
        whole = decoded(IMAGES[label]).astype(np.float64)
        windows = [whole[y : y + size, x : x + size] for y in range(3) for x in range(3)]
        assert min(_apart(name, image, each) for window in windows for each in (window, window[:, ::-1])) < NEAR
