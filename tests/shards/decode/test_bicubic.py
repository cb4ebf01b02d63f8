"""Bicubic resizing: Pillow's pixels, which are torchvision's on PIL images, and the exact sums of the definition."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from shards import Loader
from shards.decode.filters.bicubic import cubic_weights
from shards.format.ppm import ppm
from shards.sampling.crops import Crop, crop_windows, resized
from tests.conftest import decoded, jpeg, photo, write_split
from tests.shards.decode.test_resample import Pixels, cut, whole

SIDES = st.integers(1, 130)
SIZES = [(375, 500), (224, 224), (120, 190), (90, 700), (1500, 1100), (5, 3)]


def torchvisions(region: Pixels, size: tuple[int, int]) -> Pixels:
    image = torch.from_numpy(region).permute(2, 0, 1)
    resized = F.resize(image, list(size), InterpolationMode.BICUBIC, antialias=True)
    return np.asarray(resized.permute(1, 2, 0).numpy())


@settings(max_examples=80)
@given(rows=SIDES, columns=SIDES, height=SIDES, width=SIDES, hard=st.booleans())
def test_pixels_are_torchvisions_to_the_bit(rows: int, columns: int, height: int, width: int, hard: bool) -> None:
    region = np.random.default_rng(rows + columns).integers(0, 256, (rows, columns, 3), np.uint8)
    region = np.where(region > 127, 255, 0).astype(np.uint8) if hard else region
    assert np.array_equal(whole(region, (height, width), cubic=True), torchvisions(region, (height, width)))


@pytest.mark.parametrize("crop", ["center", "random"])
@pytest.mark.parametrize(
    ("sides", "resize", "size"),
    [
        ((256, 300), 248, 224),
        ((341, 256), 236, 224),
        ((375, 500), 256, 224),
        ((512, 683), 235, 192),
        ((96, 128), 80, 64),
    ],
)
def test_a_window_is_that_part_of_torchvisions_whole_image(
    sides: tuple[int, int], resize: int, size: int, crop: Crop
) -> None:
    image, (height, width) = photo(*sides), (np.array([side], np.int32) for side in sides)
    target = resized(height.astype(np.int64), width.astype(np.int64), resize)[0]
    chosen = crop_windows(
        *(crop, np.array([3]), height, width),
        resize=resize, size=size, flip=False, seed=0, epoch=0, interpolation="bicubic",
    )  # fmt: skip
    (top, left), (rows, columns) = chosen.anchor[0], chosen.shape[0]
    region = np.ascontiguousarray(image[top : top + rows, left : left + columns])
    y, x = np.rint((chosen.anchor[0] + chosen.start[0]) * target / np.array(sides)).astype(int)
    expected = torchvisions(image, tuple(target.tolist()))[y : y + size, x : x + size]
    assert np.array_equal(cut(region, chosen.start[0], chosen.end[0], (size, size), cubic=True), expected)


@pytest.mark.parametrize("size", SIZES)
def test_a_photograph_is_pillows_within_one_level(size: tuple[int, int]) -> None:
    region = photo(*size)
    expected = np.asarray(Image.fromarray(region).resize((224, 224), Image.Resampling.BICUBIC))
    difference = np.abs(whole(region, (224, 224), cubic=True).astype(int) - expected)
    assert np.quantile(difference, 0.9999) <= 1
    assert difference.max() <= 2
    assert difference.mean() < 0.02


@given(rows=SIDES, columns=SIDES, height=SIDES, width=SIDES)
def test_mirroring_is_the_mirrored_result(rows: int, columns: int, height: int, width: int) -> None:
    region = np.random.default_rng(0).integers(0, 256, (rows, columns, 3), np.uint8)
    mirrored = whole(region, (height, width), mirror=1, cubic=True)
    assert np.array_equal(mirrored, whole(region, (height, width), cubic=True)[:, ::-1])


@given(limit=SIDES, count=SIDES, share=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_weights_add_up_to_one_and_stay_inside(limit: int, count: int, share: tuple[float, float]) -> None:
    start = share[0] * (limit - 0.5)
    end = start + 0.5 + share[1] * (limit - start - 0.5)
    first, weights, bits = cubic_weights(start, end, limit, count, 0)
    # Taps and outputs go on with zeros, to even numbers and more.
    taps = weights.shape[1] - (not weights[:, -1].any())
    assert not weights[count:].any()
    assert (np.abs(weights[:count].astype(int).sum(axis=1) - 2**bits) <= taps / 2).all()
    assert first.min() >= 0
    assert (first + taps).max() <= limit


@pytest.mark.parametrize("value", [0, 1, 127, 255])
@pytest.mark.parametrize("side", [5, 40, 2500])
def test_one_colour_stays_one_colour(value: int, side: int) -> None:
    assert (whole(np.full((side, side + 3, 3), value, np.uint8), (37, 50), cubic=True) == value).all()


def test_a_window_of_whole_pixels_that_is_not_resized_is_copied() -> None:
    region = photo(60, 70)
    assert np.array_equal(cut(region, (10, 20), (42, 52), (32, 32), cubic=True), region[10:42, 20:52])


@pytest.mark.parametrize("left", [0, 7, 30])
def test_columns_of_a_wider_image_are_an_image_of_their_own(left: int) -> None:
    region = photo(50, 90)[5:45, left : left + 60]
    expected = whole(np.ascontiguousarray(region), (33, 20), cubic=True)
    assert np.array_equal(whole(region, (33, 20), cubic=True), expected)


def test_pixels_are_the_same_on_every_machine() -> None:
    pixels = (np.arange(97 * 53 * 3) * 2_654_435_761 >> 7).astype(np.uint8).reshape(97, 53, 3)
    results = [cut(pixels, (1.5, 2.25), (90.75, 50), size, cubic=True) for size in ((20, 30), (99, 61), (7, 3))]
    digest = hashlib.sha256(b"".join(result.tobytes() for result in results)).hexdigest()
    assert digest == "adc9d1e581d2a1a6a6b606452914c755a57cf96ad0d05873fdcdfd5f39f53eac"


@pytest.mark.parametrize("crop", ["center", "random"])
@pytest.mark.parametrize("raw", [False, True])
def test_batches_are_pillows_resize_and_then_crop(tmp_path: Path, crop: str, raw: bool) -> None:
    images = [jpeg(photo(120 + 9 * i, 150, seed=i)) for i in range(4)]
    stored = [ppm(decoded(image)) for image in images] if raw else images
    split = write_split(tmp_path, stored, short_side=None, encoding="raw" if raw else "jpeg")
    options = {"batch_size": 4, "train": False, "size": 48, "resize": 64, "crop": crop, "threads": 1, "dtype": "uint8"}
    with Loader(split, **options, interpolation="bicubic") as loader:  # type: ignore[arg-type]
        ((found, _),) = loader
    with Loader(split, **options) as loader:  # type: ignore[arg-type]
        ((linear, _),) = loader
    assert not torch.equal(found, linear)
    for image, batch in zip(images, found, strict=True):
        resized = F.pil_to_tensor(F.resize(Image.fromarray(decoded(image)), [64], InterpolationMode.BICUBIC))
        height, width = resized.shape[1:]
        windows = resized.unfold(1, 48, 1).unfold(2, 48, 1).permute(1, 2, 0, 3, 4).int()
        distance = (windows - batch.int()).abs().amax(dim=(2, 3, 4))
        assert distance.min() <= 1
        if crop == "center":
            assert distance[round((height - 48) / 2), round((width - 48) / 2)] <= 1
