"""Padded random crops: what torchvision's RandomCrop(size, padding) gives, from any shards, in any batch."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.dlpack import from_dlpack

from shards.common.errors import UsageError
from shards.dataset import Split
from shards.decode.policy_operators import PolicyGraph
from shards.format.ppm import ppm
from shards.sampling.crops import crop_windows
from shards.sampling.policies import draws
from tests.conftest import decoded, write_split
from tests.shards.test_loader import epoch, load, loader_ids, normalised, reference, stored


@pytest.fixture(scope="module", params=["jpeg", "raw"])
def split(request: pytest.FixtureRequest, small_split: Split, tmp_path_factory: pytest.TempPathFactory) -> Split:
    """29 images of 40 to 64 pixels, shorter side 40, as JPEGs and as pixels."""
    if request.param == "jpeg":
        return small_split
    pixels = [ppm(decoded(stored(small_split, i))) for i in range(29)]
    return write_split(tmp_path_factory.mktemp("raw"), pixels, short_side=40, encoding="raw")


def first(split: Split, **options: Any) -> tuple[torch.Tensor, list[int]]:
    """All 29 images of an epoch, and their ids."""
    with load(split, batch_size=29, **options) as loader:
        return next(iter(loader))[0], loader_ids(loader, split)


@pytest.mark.parametrize(("size", "padding"), [(40, 4), (32, 20)])
def test_padded_crops_are_torchvisions(split: Split, size: int, padding: int) -> None:
    expected = reference(split, first(split)[1], size=size, resize=40, train=True, padding=padding)
    pixels, _ = first(split, size=size, padding=padding, dtype="uint8")
    assert pixels.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(pixels, expected)
    values, _ = first(split, size=size, padding=padding)
    assert values.is_contiguous()
    assert (values - normalised(expected)).abs().max() < 1e-5


@pytest.mark.parametrize("resize", [36, 60])
def test_padding_is_of_the_resized_image(split: Split, resize: int) -> None:
    pixels, ids = first(split, resize=resize, padding=12, dtype="uint8")
    values, _ = first(split, resize=resize, padding=12)
    expected = reference(split, ids, size=32, resize=resize, train=True, padding=12)
    assert (pixels.int() - expected.int()).abs().float().mean(dim=(1, 2, 3)).max() < 1
    assert (values - normalised(expected)).abs().mean(dim=(1, 2, 3)).max() < 0.02


@pytest.mark.parametrize(("resize", "dtype"), [(40, "uint8"), (50, "float32")])
def test_a_policy_comes_between_padding_and_mirror(split: Split, resize: int, dtype: str) -> None:
    options = {"resize": resize, "padding": 16}
    padded, ids = first(split, flip=False, dtype="uint8", **options)
    pixels = np.ascontiguousarray(padded.permute(0, 2, 3, 1).numpy())
    expected = from_dlpack(PolicyGraph("trivial", 29, threads=1)(pixels, draws("trivial", np.array(ids), 0, 0)))
    sides = np.full(29, 40, np.int32)
    windows = crop_windows("random", np.array(ids), sides, sides, resize=40, size=32, flip=True, seed=0, epoch=0)
    flipped = torch.stack(
        [image.flip(1) if mirror else image for image, mirror in zip(expected, windows.mirror, strict=True)]
    ).permute(0, 3, 1, 2)
    images, _ = first(split, augment="trivial", dtype=dtype, **options)
    if dtype == "uint8":
        assert torch.equal(images, flipped)
    else:
        assert (images - normalised(flipped)).abs().max() < 1e-5


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batch=st.integers(1, 12), ranks=st.integers(1, 3), position=st.integers(0, 29), number=st.integers(0, 2))
def test_padding_does_not_depend_on_batch_ranks_and_restarts(
    small_split: Split, batch: int, ranks: int, position: int, number: int
) -> None:
    options = {"padding": 20, "drop_last": False}
    with load(small_split, batch_size=29, **options) as loader:
        loader.set_epoch(number)
        whole = next(iter(loader))[0].clone()
    for rank in range(ranks):
        with load(small_split, batch_size=batch, rank=rank, world_size=ranks, **options) as loader:
            loader.load_state_dict({**loader.state_dict(), "epoch": number, "position": position})
            images = [images for images, _ in epoch(loader)]
        assert torch.equal(torch.cat([whole[:0], *images]), whole[position + rank :: ranks])


def test_padding_stays_when_the_size_changes(split: Split) -> None:
    with load(split, batch_size=29, padding=12, dtype="uint8") as loader:
        ids = loader_ids(loader, split)
        for size, resize in ((40, 40), (24, 30), (16, 40)):
            loader.set_epoch(0)
            loader.set_size(size, resize)
            images, _ = next(iter(loader))
            expected = reference(split, ids, size=size, resize=resize, train=True, padding=12)
            assert (images.int() - expected.int()).abs().float().mean(dim=(1, 2, 3)).max() < 1
            loader.load_state_dict({**loader.state_dict(), "position": 0})
        with pytest.raises(UsageError, match="padding must be less than size, which is 12, not 12"):
            loader.set_size(12)


@pytest.mark.parametrize(
    ("options", "crop"), [({"crop": "rrc"}, "'rrc'"), ({"train": False}, "'center', the default with train=False")]
)
def test_padding_is_for_random_crops_alone(small_split: Split, options: dict[str, Any], crop: str) -> None:
    with pytest.raises(UsageError, match=f"padding is for crop='random', not {crop}$"):
        load(small_split, padding=4, **options)
