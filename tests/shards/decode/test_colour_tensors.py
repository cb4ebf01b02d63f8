"""Changes of colour by torch: the compiled loops' to the bit, on a CPU, and a blur's within a level."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.decode.colour import change_colour
from shards.decode.colour_tensors import change_colours, normalised, on_device
from shards.decode.finish import Finisher, scale_and_bias
from shards.sampling.colour import BLUR, BRIGHTNESS, CONTRAST, GRAY, HUE, IDENTITY, SATURATION, SOLARIZE, Colour, draws
from tests.conftest import photo
from tests.shards.decode.test_colour import DISTANCES, DRAWN, REFERENCES, STRENGTHS

Pixels = npt.NDArray[np.uint8]
NOISE = np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)
IMAGES: Pixels = np.stack([*(photo(60, 60, seed) for seed in range(3)), NOISE])


def by_torch(images: Pixels, operation: npt.NDArray[np.int32], strength: npt.NDArray[np.float32]) -> Pixels:
    changed = torch.from_numpy(images.copy())
    change_colours(changed, operation, strength)
    return changed.numpy()


def by_loops(images: Pixels, operation: npt.NDArray[np.int32], strength: npt.NDArray[np.float32]) -> Pixels:
    changed = images.copy()
    for image, what, how in zip(changed, operation, strength, strict=True):
        change_colour(image, what, how)
    return changed


def drawn(colour: Colour, count: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    operation, strength = draws([colour], np.arange(count)[:, None], 3, 0)
    return operation[:, 0], strength[:, 0]


@pytest.mark.parametrize("what", list(REFERENCES))
@settings(max_examples=15)
@given(data=st.data())
def test_an_operation_is_the_loops_to_the_bit(what: int, data: st.DataObject) -> None:
    how = np.array(data.draw(st.lists(STRENGTHS[what], min_size=4, max_size=4)), np.float32)[:, None]
    operation = np.full((4, 1), what, np.int32)
    difference = np.abs(by_torch(IMAGES, operation, how).astype(int) - by_loops(IMAGES, operation, how))
    assert difference.max() <= (1 if what == BLUR else 0)  # the loops sum a blur in whole numbers


@pytest.mark.parametrize("what", list(REFERENCES))
def test_an_operation_is_torchvisions_within_the_distance_of_the_loops(what: int) -> None:
    most, share = DISTANCES[what]
    for how in np.random.default_rng(1).uniform(*DRAWN.get(what, (128, 128)), (8, 4, 1)).astype(np.float32):
        found = by_torch(IMAGES, np.full((4, 1), what, np.int32), how)
        for i in range(4):
            expected = REFERENCES[what](torch.from_numpy(IMAGES[i]).permute(2, 0, 1), how[i].item()).permute(1, 2, 0)
            difference = np.abs(found[i].astype(int) - expected.numpy())
            assert difference.max() <= most
            assert (difference > 0).mean() <= share


def test_operations_follow_each_other_each_on_the_images_that_have_it() -> None:
    colour = Colour(0.4, 0.4, 0.2, 0.1, jitter=0.8, gray=0.2, solarize=0.2)
    images = np.tile(IMAGES, (8, 1, 1, 1))
    operation, strength = drawn(colour, len(images))
    assert {BRIGHTNESS, CONTRAST, SATURATION, HUE, GRAY, SOLARIZE, IDENTITY} == set(operation.ravel().tolist())
    assert np.array_equal(by_torch(images, operation, strength), by_loops(images, operation, strength))


def test_an_image_comes_out_the_same_in_any_batch_and_in_any_part_of_one() -> None:
    images = np.tile(IMAGES, (4, 1, 1, 1))
    operation, strength = drawn(Colour(0.4, 0.4, 0.2, 0.1, gray=0.2, blur=0.5, solarize=0.2), len(images))
    whole = by_torch(images, operation, strength)
    few = np.array([11, 2, 5])
    assert np.array_equal(by_torch(images[few], operation[few], strength[few]), whole[few])
    parts = torch.from_numpy(images.copy())
    change_colours(parts, operation, strength, at_once=2 * images[0].size + 1)
    assert np.array_equal(parts.numpy(), whole)


@pytest.mark.parametrize("side", [1, 9, 25])
def test_small_images_are_blurred_as_far_as_they_go(side: int) -> None:
    images, work = photo(side, side + 1)[None], (np.array([[BLUR]], np.int32), np.array([[2.0]], np.float32))
    assert np.abs(by_torch(images, *work).astype(int) - by_loops(images, *work)).max() <= 1


def test_no_images_are_no_work() -> None:
    change_colours(torch.empty(0, 4, 4, 3, dtype=torch.uint8), np.empty((0, 8), np.int32), np.empty((0, 8), np.float32))


def test_a_default_dtype_of_the_program_changes_nothing() -> None:
    operation, strength = drawn(Colour(0.4, 0.4, 0.2, 0.1, blur=0.5), len(IMAGES))
    expected = by_torch(IMAGES, operation, strength)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        assert np.array_equal(by_torch(IMAGES, operation, strength), expected)
    finally:
        torch.set_default_dtype(before)


def test_values_are_normalised_as_a_cpu_does_to_the_bit_and_float16_are_those_rounded() -> None:
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    finisher = Finisher(1, mean=mean, std=std)
    expected = torch.from_numpy(finisher.normalise(IMAGES, np.zeros(len(IMAGES), np.int32)))
    finisher.close()
    scale, bias = (torch.from_numpy(each) for each in scale_and_bias(mean, std))
    found, halves = (
        normalised(torch.from_numpy(IMAGES), scale, bias, dtype).permute(0, 3, 1, 2)
        for dtype in (torch.float32, torch.float16)
    )
    assert torch.equal(found, expected)
    assert torch.equal(halves, found.half())


def test_what_goes_to_a_gpu_is_pinned_and_the_host_does_not_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    def pinned(tensor: torch.Tensor) -> torch.Tensor:
        calls.append("pinned")
        return tensor

    def moved(tensor: torch.Tensor, device: torch.device, non_blocking: bool) -> torch.Tensor:
        calls.append((str(device), non_blocking))
        return tensor

    monkeypatch.setattr(torch.Tensor, "pin_memory", pinned)
    monkeypatch.setattr(torch.Tensor, "to", moved)
    on_device(np.arange(3), torch.device("cuda", 1))
    assert calls == ["pinned", ("cuda:1", True)]
