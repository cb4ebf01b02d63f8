"""Resizing a window: the exact sums within rounding, torchvision's pixels within one level, the same everywhere."""

import hashlib

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as F

from shards.decode import MEAN, STD
from shards.decode.resample import resample, resample_normalise
from shards.sampling.crops import CORNERS, crop_windows
from tests.conftest import photo

Pixels = npt.NDArray[np.uint8]

SIDES = st.integers(1, 130)
SHARES = st.floats(0, 1)
SCALE = (1.0 / (255.0 * np.array(STD))).astype(np.float32)
BIAS = (-np.array(MEAN) / np.array(STD)).astype(np.float32)


def cut(
    region: Pixels,
    start: npt.ArrayLike,
    end: npt.ArrayLike,
    size: tuple[int, int],
    mirror: int = 0,
    *,
    cubic: bool = False,
) -> Pixels:
    """The window of `region` as a new image of `size` (rows, columns)."""
    out, kind = np.empty((*size, 3), np.uint8), CORNERS["bicubic" if cubic else "bilinear"]
    resample(region, np.asarray(start, kind), np.asarray(end, kind), np.int32(mirror), cubic or None, out)
    return out


def whole(region: Pixels, size: tuple[int, int], mirror: int = 0, *, cubic: bool = False) -> Pixels:
    return cut(region, (0, 0), region.shape[:2], size, mirror, cubic=cubic)


def triangle(start: float, end: float, limit: int, count: int) -> npt.NDArray[np.float64]:
    """(count, limit): the definition of the filter, all source pixels for each output, in floating point."""
    scale = (end - start) / count
    centres = start + (np.arange(count) + 0.5) * scale
    distance = np.abs(np.arange(limit) + 0.5 - centres[:, None])
    weights = np.maximum(0.0, 1.0 - distance / max(scale, 1.0))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


@settings(max_examples=80)
@given(rows=SIDES, columns=SIDES, height=SIDES, width=SIDES, share=st.tuples(SHARES, SHARES, SHARES, SHARES))
def test_pixels_are_the_exact_sums_within_rounding(
    rows: int, columns: int, height: int, width: int, share: tuple[float, float, float, float]
) -> None:
    region = np.random.default_rng(rows + columns).integers(0, 256, (rows, columns, 3), np.uint8)
    extent = np.array([rows, columns])
    start = (np.array(share[:2]) * (extent - 0.5)).astype(np.float32)
    end = np.minimum(start + 0.5 + np.array(share[2:]) * (extent - start - 0.5), extent).astype(np.float32)
    vertical = triangle(float(start[0]), float(end[0]), rows, height)
    horizontal = triangle(float(start[1]), float(end[1]), columns, width)
    exact = np.einsum("yr,rcn,xc->yxn", vertical, region.astype(float), horizontal, optimize=True)
    taps = (vertical > 0).sum(axis=1).max() + (horizontal > 0).sum(axis=1).max()
    difference = np.abs(cut(region, start, end, (height, width)) - exact)
    # Each product is cut off after 8 bits of fraction.
    assert difference.max() <= 0.51 + taps / 256


def whole_weights(start: float, end: float, limit: int, count: int) -> tuple[list[int], npt.NDArray[np.int64]]:
    """First source pixels, and weights (count, taps), whose running sum is rounded."""
    scale = (end - start) / count
    support, taps = max(scale, 1.0), min(limit, int(np.ceil(2.0 * max(scale, 1.0))))
    centres = [start + (i + 0.5) * scale for i in range(count)]
    first = [min(max(0, int(centre - support + 0.5)), limit - taps) for centre in centres]
    places = np.array(first)[:, None] + np.arange(taps) + 0.5
    exact = np.maximum(0.0, support - np.abs(places - np.array(centres)[:, None])).cumsum(axis=1)
    return first, np.diff((exact * (65535.0 / exact[:, -1:]) + 0.5).astype(np.int64), axis=1, prepend=0)


@settings(max_examples=150)
@given(
    rows=st.integers(1, 60),
    columns=st.integers(1, 60),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    share=st.tuples(SHARES, SHARES),
    mirror=st.integers(0, 1),
)
def test_pixels_are_these_sums_of_whole_numbers(
    rows: int, columns: int, height: int, width: int, share: tuple[float, float], mirror: int
) -> None:
    region = np.random.default_rng(rows * columns).integers(0, 256, (rows, columns, 3), np.uint8)
    end = np.array([rows, columns], np.float32)
    start = (np.array(share) * (end - 0.5)).astype(np.float32)
    above, down = whole_weights(float(start[0]), float(end[0]), rows, height)
    left, across = whole_weights(float(start[1]), float(end[1]), columns, width)
    taps = down.shape[1], across.shape[1]
    tall = [(region[a : a + taps[0]] * w[:, None, None] >> 8).sum(axis=0) for a, w in zip(above, down, strict=True)]
    sums = [
        (np.array(tall)[:, a : a + taps[1]] * w[:, None] >> 16).sum(axis=1) for a, w in zip(left, across, strict=True)
    ]
    expected = (np.stack(sums, axis=1) + min(129 + sum(taps) // 2, 255)) >> 8
    found = cut(region, start, end, (height, width), mirror)
    assert np.array_equal(found, expected[:, ::-1] if mirror else expected)


@pytest.mark.parametrize(("rows", "columns"), [(375, 500), (224, 224), (120, 190), (90, 700), (1500, 1100), (5, 3)])
def test_a_whole_region_is_torchvisions_within_one_level(rows: int, columns: int) -> None:
    region = photo(rows, columns)
    expected = F.resize(torch.from_numpy(region).permute(2, 0, 1), [224, 224], antialias=True).permute(1, 2, 0).numpy()
    difference = np.abs(whole(region, (224, 224)).astype(int) - expected)
    assert difference.max() <= 1
    assert difference.mean() < 0.25


@pytest.mark.parametrize("crop", ["random", "center"])
@pytest.mark.parametrize("size", [(375, 500), (500, 375), (1200, 801), (200, 333)])
def test_a_window_is_torchvisions_resize_and_then_crop(crop: str, size: tuple[int, int]) -> None:
    image = photo(*size)
    ids = np.arange(4)
    height, width = (np.full(4, side, np.int32) for side in size)
    chosen = crop_windows(crop, ids, height, width, resize=64, size=56, flip=False, seed=1, epoch=0)  # type: ignore[arg-type]
    resized = F.resize(torch.from_numpy(image).permute(2, 0, 1), [64], antialias=True).permute(1, 2, 0).numpy()
    for i in ids:
        top, left = chosen.anchor[i]
        region = np.ascontiguousarray(image[top : top + chosen.shape[i, 0], left : left + chosen.shape[i, 1]])
        found = cut(region, chosen.start[i], chosen.end[i], (56, 56))
        corner = np.rint((chosen.start[i] + chosen.anchor[i]) * resized.shape[:2] / size).astype(int)
        expected = resized[corner[0] : corner[0] + 56, corner[1] : corner[1] + 56]
        assert np.abs(found.astype(int) - expected).max() <= 1


@given(rows=SIDES, columns=SIDES, height=SIDES, width=SIDES)
def test_mirroring_is_the_mirrored_result(rows: int, columns: int, height: int, width: int) -> None:
    region = np.random.default_rng(0).integers(0, 256, (rows, columns, 3), np.uint8)
    assert np.array_equal(whole(region, (height, width), mirror=1), whole(region, (height, width))[:, ::-1])


@pytest.mark.parametrize("mirror", [0, 1])
@pytest.mark.parametrize("side", [1, 31, 64])
@pytest.mark.parametrize("cubic", [False, True])
def test_normalising_in_the_same_pass_is_normalising_afterwards(side: int, mirror: int, cubic: bool) -> None:
    region = photo(80, 61)
    corner, end = np.array([3.25, 0], np.float32), np.array([70.5, 61], np.float32)
    out = np.empty((3, side, side), np.float32)
    resample_normalise(region, corner, end, np.int32(mirror), cubic or None, SCALE, BIAS, out)
    expected = cut(region, corner, end, (side, side), mirror, cubic=cubic) * SCALE + BIAS
    assert np.abs(out - expected.transpose(2, 0, 1)).max() < 1e-5


@pytest.mark.parametrize("value", [0, 1, 127, 255])
@pytest.mark.parametrize("side", [5, 40, 2500])
def test_one_colour_stays_one_colour(value: int, side: int) -> None:
    assert (whole(np.full((side, side + 3, 3), value, np.uint8), (37, 50)) == value).all()


def test_a_window_of_whole_pixels_that_is_not_resized_is_copied() -> None:
    region = photo(60, 70)
    assert np.array_equal(cut(region, (10, 20), (42, 52), (32, 32)), region[10:42, 20:52])


@pytest.mark.parametrize("left", [0, 7, 30])
def test_columns_of_a_wider_image_are_an_image_of_their_own(left: int) -> None:
    image = photo(50, 90)
    region = image[5:45, left : left + 60]
    assert np.array_equal(whole(region, (33, 20)), whole(np.ascontiguousarray(region), (33, 20)))
    narrow = image[5:45, left : left + 4]
    assert np.array_equal(whole(narrow, (33, 20)), whole(np.ascontiguousarray(narrow), (33, 20)))


def test_a_region_that_cannot_be_written_to_is_read() -> None:
    region = photo(50, 40)
    expected = whole(region, (33, 20))
    region.flags.writeable = False
    assert np.array_equal(whole(region, (33, 20)), expected)


def test_pixels_in_another_order_are_refused() -> None:
    with pytest.raises(ValueError, match="side by side"):
        whole(photo(40, 40).swapaxes(0, 1), (20, 20))


@pytest.mark.parametrize("cubic", [False, True])
@pytest.mark.parametrize("side", [1, 3, 9, 24])
def test_nothing_is_written_beside_the_output(side: int, cubic: bool) -> None:
    batch, values = np.full((3, side, side, 3), 77, np.uint8), np.full((3, 3, side, side), 77, np.float32)
    corners = np.array([0, 0], np.float32), np.array([40, 40], np.float32)
    resample(photo(40, 40), *corners, np.int32(0), cubic or None, batch[1])
    resample_normalise(photo(40, 40), *corners, np.int32(0), cubic or None, SCALE, BIAS, values[1])
    assert (batch[[0, 2]] == 77).all()
    assert (values[[0, 2]] == 77).all()


def test_pixels_are_the_same_on_every_machine() -> None:
    pixels = (np.arange(97 * 53 * 3) * 2_654_435_761 >> 7).astype(np.uint8).reshape(97, 53, 3)
    results = [cut(pixels, (1.5, 2.25), (90.75, 50), size) for size in ((20, 30), (99, 61), (7, 3))]
    digest = hashlib.sha256(b"".join(result.tobytes() for result in results)).hexdigest()
    assert digest == "c55160b965f1fdb098039ac4f430c7061b6b51b171e090c94dc28ee49f9cadf1"


@pytest.mark.parametrize(
    ("start", "end"), [((-1, 0), (5, 5)), ((0, 0), (11, 5)), ((0, 0), (5, 12)), ((3, 3), (3, 5)), ((0, np.nan), (5, 5))]
)
def test_a_window_outside_the_region_is_refused(start: tuple[float, float], end: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="not inside the region"):
        cut(photo(10, 11), start, end, (4, 4))
