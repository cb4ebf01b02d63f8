"""Changes of colour: torchvision's on tensors of 8 bits within a level, which docs/loader.md states."""

import hashlib
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as F

from shards.decode.colour import change_colour, kernel_size
from shards.sampling.colour import BLUR, BRIGHTNESS, CONTRAST, GRAY, HUE, IDENTITY, SATURATION, SOLARIZE
from tests.conftest import photo

Pixels = npt.NDArray[np.uint8]


def changed(image: Pixels, *operations: tuple[int, float]) -> Pixels:
    out = image.copy()
    numbers, strengths = zip(*operations, strict=True)
    change_colour(out, np.array(numbers, np.int32), np.array(strengths, np.float32))
    return out


def blurred(image: torch.Tensor, sigma: float) -> torch.Tensor:
    size = kernel_size(image.shape[-1])
    result: torch.Tensor = F.gaussian_blur(image, [size, size], [sigma, sigma])
    return result


REFERENCES: dict[int, Callable[[torch.Tensor, float], torch.Tensor]] = {
    BRIGHTNESS: F.adjust_brightness,
    CONTRAST: F.adjust_contrast,
    SATURATION: F.adjust_saturation,
    HUE: F.adjust_hue,
    GRAY: lambda image, _: F.rgb_to_grayscale(image, 3),
    BLUR: blurred,
    SOLARIZE: F.solarize,
}
# The largest difference in levels, for any factor; and the largest part of the values that differ, for factors drawn
# evenly: docs/loader.md states these.
DISTANCES = {
    BRIGHTNESS: (0, 0.0),
    CONTRAST: (1, 0.001),
    SATURATION: (1, 0.03),
    HUE: (1, 0.001),
    GRAY: (0, 0.0),
    BLUR: (1, 0.02),
    SOLARIZE: (0, 0.0),
}
# At and beside these, many results lie within float32's rounding of a whole level: of saturation by 2**-23 a tenth of
# the values differ by a level.
EDGES = [0.0, 2.0**-23, 0.5, 1 - 2.0**-24, 1.0, 1 + 2.0**-23, 2.0]
FACTORS = st.sampled_from(EDGES) | st.floats(0, 2.5, width=32)
STRENGTHS = {
    BRIGHTNESS: FACTORS,
    CONTRAST: FACTORS,
    SATURATION: FACTORS,
    HUE: st.floats(-0.5, 0.5, width=32),
    GRAY: st.just(0.0),
    BLUR: st.floats(0.125, 2.0, width=32),
    SOLARIZE: st.just(128.0),
}
# From which `draws` of shards/sampling/colour.py draws evenly, for the methods' colours and stronger ones.
DRAWN = {BRIGHTNESS: (0, 2.5), CONTRAST: (0, 2.5), SATURATION: (0, 2.5), HUE: (-0.5, 0.5), BLUR: (0.125, 2)}
IMAGES = [photo(96, 96), photo(70, 111, seed=3), np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)]


def differences(what: int, how: float) -> list[npt.NDArray[np.int64]]:
    """From torchvision's pixels, of each image."""
    found = []
    for image in IMAGES:
        expected = REFERENCES[what](torch.from_numpy(image).permute(2, 0, 1), how).permute(1, 2, 0).numpy()
        found.append(np.abs(changed(image, (what, how)).astype(np.int64) - expected))
    return found


@pytest.mark.parametrize("what", list(REFERENCES))
@settings(max_examples=20)
@given(data=st.data())
def test_no_pixel_is_further_from_torchvisions_than_stated(what: int, data: st.DataObject) -> None:
    assert max(each.max() for each in differences(what, data.draw(STRENGTHS[what]))) <= DISTANCES[what][0]


@pytest.mark.parametrize("what", list(DRAWN))
def test_of_factors_drawn_evenly_few_values_differ_from_torchvisions(what: int) -> None:
    for how in np.random.default_rng(0).uniform(*DRAWN[what], 30).astype(np.float32).tolist():
        assert max((each > 0).mean() for each in differences(what, how)) <= DISTANCES[what][1]


def test_operations_follow_each_other() -> None:
    image = photo(40, 50)
    steps = [(HUE, 0.2), (BRIGHTNESS, 0.7), (IDENTITY, 5.0), (BLUR, 0.9), (SOLARIZE, 128.0)]
    expected = image
    for step in steps:
        expected = changed(expected, step)
    assert np.array_equal(changed(image, *steps), expected)
    assert not np.array_equal(changed(image, *steps[::-1]), expected)


@pytest.mark.parametrize("what", [BRIGHTNESS, CONTRAST, SATURATION, HUE])
def test_no_change_is_no_change(what: int) -> None:
    image = photo(40, 50)
    assert np.array_equal(changed(image, (what, 0.0 if what == HUE else 1.0)), image)


@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (30, 1), (2, 25), (5, 4)])
def test_images_smaller_than_the_kernel_are_blurred_as_far_as_they_go(shape: tuple[int, int]) -> None:
    image = photo(*shape)
    result = changed(image, (BLUR, 2.0))
    assert result.shape == image.shape
    assert image.min() <= result.min()
    assert result.max() <= image.max()


@pytest.mark.parametrize("value", [0, 1, 128, 255])
def test_one_colour_stays_one_colour_when_it_is_blurred(value: int) -> None:
    image = np.full((64, 64, 3), value, np.uint8)
    assert (changed(image, (BLUR, 1.7)) == value).all()


def test_nothing_is_written_beside_the_image() -> None:
    batch = np.full((3, 41, 41, 3), 77, np.uint8)
    batch[1] = photo(41, 41)
    every = [(BRIGHTNESS, 1.2), (CONTRAST, 0.5), (SATURATION, 0.5), (HUE, 0.1), (GRAY, 0), (BLUR, 2), (SOLARIZE, 128)]
    numbers, strengths = zip(*every, strict=True)
    change_colour(batch[1], np.array(numbers, np.int32), np.array(strengths, np.float32))
    assert (batch[[0, 2]] == 77).all()


def test_pixels_are_the_same_on_every_machine() -> None:
    pixels = (np.arange(61 * 53 * 3) * 2_654_435_761 >> 7).astype(np.uint8).reshape(61, 53, 3)
    every = [(HUE, 0.1), (CONTRAST, 0.7), (SATURATION, 1.4), (BRIGHTNESS, 1.1), (BLUR, 1.5)]
    digest = hashlib.sha256(changed(pixels, *every).tobytes()).hexdigest()
    assert digest == "11bd3ee4a5c8d101276dc7a2e3c81805cda666b7de7ee0c0c5519fa39e86c89f"
