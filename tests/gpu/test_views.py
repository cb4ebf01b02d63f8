"""Several views and 3-Augment on a GPU: a CPU's pixels, within the rounding of decoders and of DALI's filter."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shards import Colour, Loader, View
from shards.dataset import Split
from shards.decode import MEAN, STD
from shards.decode.colour_tensors import change_colours
from shards.format.ppm import ppm
from shards.sampling.colour import BLUR, draws
from tests.conftest import photo, write_split

pytestmark = pytest.mark.gpu

COLOUR = Colour(0.4, 0.4, 0.2, 0.1, jitter=0.8, gray=0.2, blur=0.5, solarize=0.2)
VIEWS = [View(24, scale=(0.4, 1.0), interpolation="bicubic", n=2, colour=COLOUR), View(12, scale=(0.05, 0.4), n=3)]
PLAIN = [replace(view, colour=Colour()) for view in VIEWS]
# Mean difference from a CPU's views, in levels: of views as they are cut, and where colours make it larger.
CUT, COLOURED = 2.0, 4.0


def batch(split: Split, **options: Any) -> list[torch.Tensor]:
    """The first batch's images, all samples, on the CPU; a single tensor as a list too."""
    usual: dict[str, Any] = {"batch_size": len(split), "train": True, "threads": 2, "dtype": "uint8"}
    with Loader(split, **{**usual, **options}) as loader:
        images, _ = next(iter(loader))
    return [view.cpu() for view in (images if isinstance(images, list) else [images])]


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return (one.float() - other.float()).abs().mean().item()


@pytest.mark.parametrize("decode", ["cpu", "region", "hardware", "hybrid"])
@pytest.mark.parametrize(("views", "most"), [(PLAIN, CUT), (VIEWS, COLOURED)])
def test_views_are_those_of_a_cpu(small_split: Split, decode: str, views: list[View], most: float) -> None:
    expected = batch(small_split, views=views)
    found = batch(small_split, views=views, device="gpu", decode=decode)
    assert [view.shape for view in found] == [view.shape for view in expected]
    for view, other in zip(found, expected, strict=True):
        assert view.is_contiguous(memory_format=torch.channels_last)
        assert distance(view, other) < most


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("views", [VIEWS, PLAIN])
def test_values_are_the_pixels_normalised(small_split: Split, views: list[View], dtype: str) -> None:
    usual: dict[str, Any] = {"views": views, "device": "gpu", "decode": "cpu"}
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (MEAN, STD))
    for view, pixels in zip(batch(small_split, **usual, dtype=dtype), batch(small_split, **usual), strict=True):
        assert view.dtype == getattr(torch, dtype)
        assert (view.float() - (pixels / 255 - mean) / std).abs().max() < (1e-5 if dtype == "float32" else 2e-3)


def test_stored_pixels_have_views(small_split: Split, tmp_path: Path) -> None:
    raw = write_split(tmp_path, [ppm(photo(40, 40 + i, i)) for i in range(12)], short_side=40, encoding="raw")
    for view, other in zip(batch(raw, views=PLAIN, device="gpu"), batch(raw, views=PLAIN), strict=True):
        assert distance(view, other) < CUT


@pytest.mark.parametrize("options", [{}, {"crop": "rrc"}, {"padding": 8}])
def test_three_augment_is_a_cpus(small_split: Split, options: dict[str, Any]) -> None:
    usual: dict[str, Any] = {"size": 32, "resize": 40, "augment": "three", **options}
    (expected,), (found,) = batch(small_split, **usual), batch(small_split, **usual, device="gpu", decode="cpu")
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert distance(found, expected) < COLOURED


def test_colours_change_without_waiting_for_the_gpu_and_as_on_a_cpu() -> None:
    images = np.stack([photo(64, 64, seed) for seed in range(32)])
    operations, strengths = draws([COLOUR], np.arange(32)[:, None], 5, 0)
    operation, strength = operations[:, 0], strengths[:, 0]
    expected, found = torch.from_numpy(images), torch.from_numpy(images).cuda()
    change_colours(expected, operation, strength)
    torch.cuda.set_sync_debug_mode("error")
    try:
        change_colours(found, operation, strength)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    difference = (found.cpu().int() - expected.int()).abs()
    assert not difference[(operation != BLUR).all(axis=1)].any()
    assert difference.max() <= 1


def test_views_that_are_decoded_together_are_those_of_single_batches(small_split: Split) -> None:
    whole = batch(small_split, views=VIEWS, device="gpu", decode="cpu", batch_size=28)
    with Loader(
        small_split, batch_size=4, train=True, threads=2, dtype="uint8", views=VIEWS, device="gpu", decode="cpu"
    ) as loader:
        assert loader._feed.config.graph.batch_size == 28
        for number, (images, _) in enumerate(loader):
            torch.cuda._sleep(10_000_000)  # type: ignore[no-untyped-call]  # the consumer is late: nothing may be written over meanwhile
            for view, other in zip(images, whole, strict=True):
                assert torch.equal(view.cpu(), other[4 * number : 4 * number + 4])
    assert number == 6
