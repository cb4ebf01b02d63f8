"""Resizing gives Pillow's antialiased bilinear pixels, and the same ones everywhere."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from preprocess.images.resize import WEIGHT_BITS, resize, weights
from tests.conftest import photo

SIDES = st.integers(1, 130)


@settings(max_examples=60, deadline=None)
@given(rows=SIDES, columns=SIDES, width=SIDES, height=SIDES, seed=st.integers(0, 9))
def test_pixels_are_pillows_within_rounding(rows: int, columns: int, width: int, height: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (rows, columns, 3), np.uint8)
    expected = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
    difference = np.abs(resize(pixels, width, height).astype(int) - expected)
    assert difference.max() <= 1
    assert difference.mean() < 0.6


def test_a_photograph_resized_as_a_conversion_does_is_pillows() -> None:
    pixels = photo(375, 500)
    expected = np.asarray(Image.fromarray(pixels).resize((341, 256), Image.Resampling.BILINEAR))
    difference = np.abs(resize(pixels, 341, 256).astype(int) - expected)
    assert difference.mean() < 0.25


def test_pixels_are_the_same_on_every_machine() -> None:
    pixels = (np.arange(37 * 53 * 3) * 2_654_435_761 >> 7).astype(np.uint8).reshape(37, 53, 3)
    digest = hashlib.sha256(resize(pixels, 20, 30).tobytes() + resize(pixels, 70, 61).tobytes()).hexdigest()
    assert digest == "8ab86ac210b048c55b715225983bd10c4cbfc0f938a4a79a0756118994f3ab1e"


@given(size=st.integers(1, 5000), new_size=st.integers(1, 600))
def test_weights_add_up_and_stay_inside(size: int, new_size: int) -> None:
    first, whole = weights(size, new_size)
    assert whole.shape[0] == new_size
    assert (whole >= 0).all()
    assert (whole.sum(axis=1, dtype=int) == 2**WEIGHT_BITS).all()
    assert first.min() >= 0
    assert first.max() + whole.shape[1] <= size


@pytest.mark.parametrize("value", [0, 1, 127, 255])
def test_one_colour_stays_one_colour(value: int) -> None:
    assert (resize(np.full((50, 31, 3), value, np.uint8), 17, 90) == value).all()


def test_pixels_that_do_not_lie_in_order_are_read_right() -> None:
    pixels = photo(40, 60)
    turned = pixels.swapaxes(0, 1)[:, ::-1]
    assert np.array_equal(resize(turned, 20, 30), resize(np.ascontiguousarray(turned), 20, 30))
