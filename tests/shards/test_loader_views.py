"""Loaders with several views: the pixels of each, and that ranks, batch sizes and restarts change nothing."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from shards import Colour, Loader, View
from shards.common.errors import UsageError
from shards.dataset import Split
from shards.decode.colour import change_colour
from shards.format.ppm import ppm
from shards.sampling.colour import three_draws
from shards.sampling.views import plan_views, single
from tests.conftest import decoded, jpeg, photo, write_split
from tests.shards.test_loader import assert_left_out_of_every_view, damaged_split, normalised, stored

COLOUR = Colour(0.4, 0.4, 0.2, 0.1, jitter=0.8, gray=0.2, blur=0.5, solarize=0.2)
VIEWS = [View(24, scale=(0.4, 1.0), interpolation="bicubic", n=2, colour=COLOUR), View(12, scale=(0.05, 0.4), n=3)]
Batches = list[tuple[list[torch.Tensor], torch.Tensor]]


def load(split: Split, **options: Any) -> Loader:
    return Loader(
        split,
        **{"batch_size": 4, "train": True, "views": VIEWS, "threads": 2, "dtype": "uint8", "ids": True, **options},
    )


def every(loader: Loader) -> dict[int, list[torch.Tensor]]:
    """The views of each sample of the rest of an epoch."""
    found = {}
    for images, _, ids in loader:
        for place, sample in enumerate(ids.tolist()):
            assert sample not in found
            found[sample] = [view[place].clone() for view in images]
    return found


def same(first: dict[int, list[torch.Tensor]], second: dict[int, list[torch.Tensor]]) -> bool:
    return first.keys() == second.keys() and all(
        all(torch.equal(a, b) for a, b in zip(first[sample], second[sample], strict=True)) for sample in first
    )


@pytest.fixture(scope="module")
def raw_split(tmp_path_factory: pytest.TempPathFactory, small_split: Split) -> Split:
    """The images of `small_split` as pixels."""
    pixels = [ppm(decoded(stored(small_split, sample))) for sample in range(len(small_split))]
    return write_split(tmp_path_factory.mktemp("raw"), pixels, short_side=40, encoding="raw")


@pytest.fixture(scope="module")
def whole_epoch(small_split: Split) -> dict[int, list[torch.Tensor]]:
    """Epoch 0 of the default loader here, all samples."""
    with load(small_split, drop_last=False) as loader:
        return every(loader)


def reference(image: np.ndarray, sample: int, views: Sequence[View]) -> list[torch.Tensor]:
    """The views of a decoded image in epoch 0 of seed 0: torchvision's crops, and our changes of colour."""
    region, planned = plan_views(
        single(views), np.array([sample]), *(np.array([side]) for side in image.shape[:2]), seed=0, epoch=0
    )
    found = []
    for number, view in enumerate(planned.views):
        (top, left), (height, width) = region.anchor[0] + planned.anchor[0, number], planned.shape[0, number]
        mode = InterpolationMode.BICUBIC if view.interpolation == "bicubic" else InterpolationMode.BILINEAR
        pixels = torch.from_numpy(image).permute(2, 0, 1)
        cut = F.resized_crop(pixels, top, left, height, width, [view.size] * 2, interpolation=mode, antialias=True)
        cut = F.hflip(cut) if planned.mirror[0, number] else cut
        array = cut.permute(1, 2, 0).contiguous().numpy()
        change_colour(array, planned.operation[0, number], planned.strength[0, number])
        found.append(torch.from_numpy(array).permute(2, 0, 1))
    return found


def test_stored_pixels_give_torchvisions_crops_of_every_view(raw_split: Split) -> None:
    views = [dataclasses.replace(view, colour=Colour()) for view in VIEWS]
    with load(raw_split, views=views, drop_last=False) as loader:
        found = every(loader)
    assert sorted(found) == list(range(29))
    for sample, images in found.items():
        for view, ours, expected in zip(
            single(views), images, reference(decoded(stored(raw_split, sample)), sample, views), strict=True
        ):
            # Bicubic is torchvision's to the bit; torch's bilinear kernel rounds between the directions.
            assert (ours.int() - expected.int()).abs().max() <= (view.interpolation == "bilinear")


def test_colours_are_changed_after_the_resize(raw_split: Split) -> None:
    views = [View(24, interpolation="bicubic", n=2, colour=COLOUR)]
    with load(raw_split, views=views, drop_last=False) as loader:
        for sample, images in every(loader).items():
            for ours, expected in zip(
                images, reference(decoded(stored(raw_split, sample)), sample, views), strict=True
            ):
                # The blur commutes with the flip up to rounding.
                assert (ours.int() - expected.int()).abs().max() <= 1 or (ours != expected).float().mean() < 0.02


def test_jpegs_give_the_views_of_their_pixels(
    raw_split: Split, small_split: Split, whole_epoch: dict[int, list[torch.Tensor]]
) -> None:
    views = [dataclasses.replace(view, colour=Colour()) for view in VIEWS]
    with load(small_split, views=views, drop_last=False) as loader:
        encoded = every(loader)
    with load(raw_split, views=views, drop_last=False) as loader:
        assert same(every(loader), encoded)
    with load(raw_split, drop_last=False) as loader:
        assert same(every(loader), whole_epoch)


def test_one_view_is_the_random_resized_crop_with_other_draws(small_split: Split) -> None:
    with load(small_split, views=[View(24)], order="index") as loader:
        (images,), labels, ids = next(iter(loader))
    assert images.shape == (4, 3, 24, 24)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert labels.dtype == torch.int64
    assert ids.tolist() == [0, 1, 2, 3]


def test_float32_is_the_pixels_normalised(small_split: Split) -> None:
    with load(small_split, dtype="float32") as loader, load(small_split) as other:
        (values, _, _), (pixels, _, _) = next(iter(loader)), next(iter(other))
    for one, view in zip(values, pixels, strict=True):
        assert one.dtype == torch.float32
        assert one.is_contiguous()
        assert (one - normalised(view)).abs().max() < 1e-5


@settings(max_examples=6)
@given(world=st.integers(1, 4), batch_size=st.integers(1, 7), threads=st.integers(1, 3))
def test_views_do_not_depend_on_ranks_batch_size_or_threads(
    small_split: Split, whole_epoch: dict[int, list[torch.Tensor]], world: int, batch_size: int, threads: int
) -> None:
    found: dict[int, list[torch.Tensor]] = {}
    for rank in range(world):
        with load(
            small_split, rank=rank, world_size=world, batch_size=batch_size, threads=threads, drop_last=False
        ) as loader:
            found |= every(loader)
    assert same(found, whole_epoch)


@settings(max_examples=6)
@given(taken=st.integers(0, 6), batch_size=st.integers(1, 9), world=st.integers(1, 2))
def test_going_on_equals_never_stopping(
    small_split: Split, whole_epoch: dict[int, list[torch.Tensor]], taken: int, batch_size: int, world: int
) -> None:
    found: dict[int, list[torch.Tensor]] = {}
    with load(small_split, drop_last=False) as loader:
        batches = iter(loader)
        for _ in range(taken):
            images, _, ids = next(batches)
            found |= {sample: [view[i].clone() for view in images] for i, sample in enumerate(ids.tolist())}
        state = loader.state_dict()
    for rank in range(world):
        with load(small_split, batch_size=batch_size, rank=rank, world_size=world, drop_last=False) as loader:
            loader.load_state_dict(state)
            found |= every(loader)
    assert same(found, whole_epoch)


def test_the_state_of_a_loader_with_other_views_is_taken(small_split: Split) -> None:
    """A position means the same samples."""
    with load(small_split) as loader, load(small_split, views=None, size=24, resize=40) as plain:
        next(iter(plain))
        loader.load_state_dict(plain.state_dict())
        _, _, ids = next(iter(loader))
        _, _, expected = next(iter(plain))
    assert ids.shape == expected.shape


def test_another_epoch_has_other_views(small_split: Split, whole_epoch: dict[int, list[torch.Tensor]]) -> None:
    with load(small_split, drop_last=False) as loader:
        loader.set_epoch(1)
        second = every(loader)
    assert all(not torch.equal(second[sample][0], whole_epoch[sample][0]) for sample in second)


@pytest.mark.parametrize("encoding", ["jpeg", "raw"])
def test_damaged_samples_are_left_out_of_every_view(tmp_path: Path, encoding: Any) -> None:
    assert_left_out_of_every_view(load, damaged_split(tmp_path, encoding))


def test_views_are_kept_while_one_of_them_is(small_split: Split, whole_epoch: dict[int, list[torch.Tensor]]) -> None:
    kept = []
    with load(small_split, drop_last=False) as loader:
        for images, _, ids in loader:
            kept.append((images[4], ids.tolist()))
            del images
    assert all(torch.equal(view[i], whole_epoch[s][4]) for view, ids in kept for i, s in enumerate(ids))


def test_original_sizes_have_views_too(tmp_path: Path) -> None:
    images = [jpeg(photo(9, 200)), jpeg(photo(700, 30)), jpeg(photo(1, 1)), jpeg(photo(64, 64))]
    split = write_split(tmp_path, images, short_side=None)
    with load(split, views="dino", threads=1) as loader:
        images_of, _, _ = next(iter(loader))
    assert [view.shape[-1] for view in images_of] == [224] * 2 + [96] * 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 96}, "each view has its own crop, size and colour: leave out size"),
        ({"crop": "rrc", "flip": True}, "leave out crop, flip"),
        ({"augment": "rand"}, "leave out augment"),
        ({"resize": 256, "scale": (0.2, 1)}, "leave out resize, scale"),
        ({"interpolation": "bicubic"}, "leave out interpolation"),
        ({"views": "byol"}, "views must be one of simclr"),
        ({"views": []}, "views must be 1 to 256"),
    ],
)
def test_arguments_that_views_have_themselves_are_one_line(
    small_split: Split, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        load(small_split, **options)


def test_the_size_of_views_cannot_be_set(small_split: Split) -> None:
    with load(small_split) as loader, pytest.raises(UsageError, match="sizes of their own"):
        loader.set_size(12)


def test_a_loader_says_how_many_views_it_has(small_split: Split) -> None:
    with load(small_split) as loader:
        assert "5 views of 24 pixels at most" in repr(loader)


@pytest.mark.parametrize("crop", ["random", "rrc"])
def test_three_augment_comes_between_the_resize_and_the_mirror(raw_split: Split, small_split: Split, crop: str) -> None:
    options: dict[str, Any] = {"views": None, "size": 32, "resize": 40, "crop": crop, "drop_last": False}
    with load(small_split, **options) as loader:
        plain = {sample: image for images, _, ids in loader for sample, image in zip(ids.tolist(), images, strict=True)}
    drawn = three_draws(np.arange(29), 0, 0)
    for split in (small_split, raw_split):
        with load(split, **options, augment="three") as loader:
            for images, _, ids in loader:
                for sample, image in zip(ids.tolist(), images, strict=True):
                    expected = plain[sample].permute(1, 2, 0).contiguous().numpy().copy()
                    change_colour(expected, drawn["operation"][sample], drawn["strength"][sample])
                    difference = (image.permute(1, 2, 0).int() - torch.from_numpy(expected).int()).abs()
                    assert difference.max() <= 1  # a blur in the mirror rounds otherwise


def test_views_are_normalised_by_the_mean_and_deviation_that_are_given(small_split: Split) -> None:
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    same: dict[str, Any] = {"batch_size": 4, "train": True, "threads": 1, "views": [View(16), View(24)]}
    with (
        Loader(small_split, dtype="uint8", **same) as pixels,
        Loader(small_split, mean=mean, std=std, **same) as values,
    ):
        for (raw, _), (normalised, _) in zip(pixels, values, strict=True):
            for view, other in zip(raw, normalised, strict=True):
                scaled = (view.float() / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
                torch.testing.assert_close(other, scaled, rtol=0, atol=1e-5)
