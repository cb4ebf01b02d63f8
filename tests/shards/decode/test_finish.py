import gc
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as F

from shards.decode import MEAN, STD
from shards.decode.finish import Finisher, WholeImages
from tests.conftest import photo

MIRROR = np.array([0, 1, 1, 0, 1], np.int32)


@pytest.fixture(params=[1, 3])
def finisher(request: pytest.FixtureRequest) -> Iterator[Finisher]:
    made = Finisher(threads=request.param)
    yield made
    made.close()


@pytest.mark.parametrize("width", [1, 31, 224])
def test_normalise_is_torchvisions(finisher: Finisher, width: int) -> None:
    images = np.stack([photo(40, width, seed) for seed in range(5)])
    expected = torch.from_numpy(images).permute(0, 3, 1, 2)
    expected = torch.stack([F.hflip(image) if flip else image for image, flip in zip(expected, MIRROR, strict=True)])
    expected = F.normalize(F.to_dtype(expected, torch.float32, scale=True), list(MEAN), list(STD))
    assert np.abs(finisher.normalise(images, MIRROR) - expected.numpy()).max() < 1e-5


def test_another_mean_and_deviation_are_taken_in_every_pass() -> None:
    mean, std = (0.5, 0.25, 0.0), (0.5, 1.0, 0.125)
    finisher = Finisher(threads=1, mean=mean, std=std)
    images = np.stack([photo(20, 20, seed) for seed in range(5)])
    expected = F.normalize(
        F.to_dtype(torch.from_numpy(images).permute(0, 3, 1, 2), torch.float32, scale=True), mean, std
    )
    upright = np.zeros(5, np.int32)
    corners = np.zeros((5, 2), np.float32), np.full((5, 2), 20, np.float32)
    found = finisher.normalise(images, upright)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(
        finisher.resize_normalise(list(images), corners, 20, upright), expected.numpy(), atol=1e-5
    )
    finisher.shift(found, np.full((5, 2), 1, np.int32))
    black = -np.array(mean) / np.array(std)
    np.testing.assert_allclose(found[:, :, 0, 0], np.tile(black, (5, 1)), atol=1e-6)
    finisher.close()


@pytest.mark.parametrize("width", [1, 2, 31])
def test_flip_mirrors_the_chosen_images_in_place(finisher: Finisher, width: int) -> None:
    images = np.stack([photo(9, width, seed) for seed in range(5)])
    expected = np.stack([image[:, ::-1] if flip else image for image, flip in zip(images, MIRROR, strict=True)])
    finisher.flip(images, MIRROR)
    assert np.array_equal(images, expected)


@pytest.mark.parametrize("size", [1, 3, 31])
def test_windows_are_cut_out_of_images_side_by_side(finisher: Finisher, size: int) -> None:
    images = [photo(size + seed, size + 2 * seed, seed) for seed in range(5)]
    bounds = np.cumsum([0, *(image.size for image in images)])
    width, top = np.array([image.shape[1] for image in images]), np.arange(5)
    left, pixels = np.array([0, 2, 1, 6, 3]), np.concatenate([image.ravel() for image in images])
    whole = WholeImages(pixels, bounds[:-1] + 3 * width * top, width, left, np.full((5, 2), size))
    expected = [
        image[y : y + size, x : x + size][:, :: -1 if flip else 1]
        for image, y, x, flip in zip(images, top, left, MIRROR, strict=True)
    ]
    found = finisher.cut(whole, size, MIRROR)
    assert np.array_equal(found, expected)
    upright = np.zeros(5, np.int32)
    assert np.array_equal(finisher.cut_normalise(whole, size, MIRROR), finisher.normalise(found, upright))


def moved(image: np.ndarray, down: int, right: int) -> np.ndarray:
    """`image` (height, width, 3), pixel by pixel."""
    out = np.zeros_like(image)
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            if 0 <= y - down < image.shape[0] and 0 <= x - right < image.shape[1]:
                out[y, x] = image[y - down, x - right]
    return out


@pytest.mark.parametrize(("height", "width"), [(9, 31), (5, 4)])
def test_shift_moves_pixels_and_normalised_values_in_place_and_leaves_black(
    finisher: Finisher, height: int, width: int
) -> None:
    upright, shift = np.zeros(5, np.int32), np.array([(0, 0), (2, -3), (-4, 1), (0, 3), (-1, 0)], np.int32)
    images = np.stack([photo(height, width, seed) for seed in range(5)])
    expected = np.stack([moved(image, down, right) for image, (down, right) in zip(images, shift, strict=True)])
    values = finisher.normalise(images, upright)
    finisher.shift(images, shift)
    finisher.shift(values, shift)
    assert np.array_equal(images, expected)
    assert np.array_equal(values, finisher.normalise(expected, upright))


def test_memory_is_used_again_only_when_nothing_refers_to_it(finisher: Finisher) -> None:
    images = np.stack([photo(8, 8, seed) for seed in range(5)])
    first = torch.from_numpy(finisher.normalise(images, MIRROR))
    part, address, values = first[2, 1], first.data_ptr(), first[2, 1].clone()
    del first
    gc.collect()
    second = finisher.normalise(255 - images, MIRROR)
    assert second.ctypes.data != address
    assert torch.equal(part, values)
    del part
    gc.collect()
    assert finisher.normalise(images, MIRROR).ctypes.data == address


def test_a_short_last_batch_fits_into_a_used_buffer(finisher: Finisher) -> None:
    images = np.stack([photo(8, 8, seed) for seed in range(5)])
    full = finisher.normalise(images, MIRROR).copy()
    short = finisher.normalise(images[:2], MIRROR[:2])
    assert short.shape == (2, 3, 8, 8)
    assert np.array_equal(short, full[:2])
