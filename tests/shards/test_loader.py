import contextlib
import gc
import io
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms.v2 import functional as F

from shards import Loader
from shards.common.errors import ShardfeedError, UsageError
from shards.dataset import Split
from shards.decode import MEAN, STD
from shards.defaults import choose_decoder
from shards.feed.local import LocalShards
from shards.feed.loop import Delivered, FeedLoop
from shards.feed.plan import Planner
from shards.format.layout import Encoding
from shards.format.ppm import ppm
from shards.sampling.batch import PlannedBatch
from shards.sampling.crops import crop_windows
from shards.sampling.order import epoch_order
from tests import ROOT
from tests.conftest import decoded, jpeg, photo, write_split
from tests.helpers.datasets import no_files

Batch = tuple[torch.Tensor, torch.Tensor]


def load(split: Split, **options: Any) -> Loader:
    return Loader(split, **{"batch_size": 4, "train": True, "size": 32, "resize": 40, "threads": 2, **options})


def epoch(loader: Loader) -> list[Batch]:
    return [(images.clone(), labels.clone()) for images, labels in loader]


def stored(split: Split, sample: int) -> bytes:
    index = split.index
    with split.shard_paths[index.shard[sample]].open("rb") as file:
        file.seek(index.offset[sample])
        return bytes(file.read(index.size[sample]))


def same(first: list[Batch], second: list[Batch]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(first, second, strict=True)
    )


def reference(
    split: Split, ids: list[int], *, size: int, resize: int, train: bool, number: int = 0, padding: int = 0
) -> torch.Tensor:
    """uint8 (n, 3, size, size): Pillow's decode, torchvision's Resize and Pad, the crop and flip of (seed 0, epoch,
    sample).
    """
    images = []
    for sample in ids:
        picture = Image.open(io.BytesIO(stored(split, sample))).convert("RGB")
        chosen = crop_windows(
            "random" if train else "center",
            np.array([sample]),
            np.array([picture.height]),
            np.array([picture.width]),
            resize=resize,
            size=size,
            flip=train,
            seed=0,
            epoch=number,
            padding=padding,
        )
        resized = F.resize(picture, [resize])
        # Back from the stored image's coordinates to those of the resized one, where the corner is whole.
        scale = np.array([resized.height / picture.height, resized.width / picture.width])
        top, left = np.rint((chosen.anchor[0] + chosen.start[0]) * scale).astype(int).tolist()
        padded = F.pad(resized, [padding])
        down, right = (padding - chosen.shift[0]).tolist()
        cropped = F.pil_to_tensor(F.crop(padded, top + down, left + right, size, size))
        images.append(F.hflip(cropped) if chosen.mirror[0] else cropped)
    return torch.stack(images)


def normalised(pixels: torch.Tensor) -> torch.Tensor:
    values: torch.Tensor = F.normalize(F.to_dtype(pixels, torch.float32, scale=True), list(MEAN), list(STD))
    return values


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory, real_images: list[bytes]) -> Split:
    """Real photographs with their shorter side at 256 pixels."""
    images = []
    for data in real_images[:24]:
        picture = F.resize(Image.open(io.BytesIO(data)).convert("RGB"), [256])
        images.append(jpeg(np.asarray(picture)))
    return write_split(tmp_path_factory.mktemp("photographs"), images, short_side=256)


@pytest.fixture(scope="session")
def originals(tmp_path_factory: pytest.TempPathFactory, real_images: list[bytes]) -> Split:
    """Real photographs as they are, those that are plain RGB JPEGs."""
    plain = [data for data in real_images if Image.open(io.BytesIO(data)).mode == "RGB"]
    plain = [data for data in plain if not Image.open(io.BytesIO(data)).getexif()]
    return write_split(tmp_path_factory.mktemp("originals"), plain[:40], short_side=None)


@pytest.mark.parametrize("train", [True, False])
def test_pixels_are_pillows_bit_for_bit_on_photographs(photographs: Split, train: bool) -> None:
    with load(photographs, batch_size=24, train=train, size=224, resize=None, dtype="uint8") as loader:
        ids = loader_ids(loader, photographs)
        images, labels = next(iter(loader))
    expected = reference(photographs, ids, size=224, resize=256, train=train)
    assert torch.equal(images, expected)
    assert labels.tolist() == photographs.labels[ids].tolist()


def test_normalised_values_are_torchvisions_on_photographs(photographs: Split) -> None:
    with load(photographs, batch_size=24, size=224, resize=None) as loader:
        ids = loader_ids(loader, photographs)
        images, _ = next(iter(loader))
    expected = normalised(reference(photographs, ids, size=224, resize=256, train=True))
    assert (images - expected).abs().max() < 1e-5


@pytest.mark.parametrize("train", [True, False])
def test_original_photographs_agree_with_torchvisions_resize(originals: Split, train: bool) -> None:
    count = len(originals)
    with load(originals, batch_size=count, train=train, size=224, resize=None) as loader:
        ids = loader_ids(loader, originals)
        images, _ = next(iter(loader))
    expected = normalised(reference(originals, ids, size=224, resize=256, train=train))
    difference = (images - expected).abs().mean(dim=(1, 2, 3))
    assert difference.mean() < 0.02
    # Each image too: a window off by one pixel would hide in the mean of many.
    assert difference.max() < 0.03


def test_pixels_are_pillows_bit_for_bit_on_images_made_here(small_split: Split) -> None:
    with load(small_split, batch_size=29, dtype="uint8") as loader:
        ids = loader_ids(loader, small_split)
        images, _ = next(iter(loader))
    assert torch.equal(images, reference(small_split, ids, size=32, resize=40, train=True))


@pytest.mark.parametrize("resize", [36, 60])
def test_a_resize_up_or_down_agrees_with_torchvision(small_split: Split, resize: int) -> None:
    with load(small_split, batch_size=29, resize=resize) as loader:
        ids = loader_ids(loader, small_split)
        images, _ = next(iter(loader))
    expected = normalised(reference(small_split, ids, size=32, resize=resize, train=True))
    assert (images - expected).abs().mean() < 0.02


def loader_ids(loader: Loader, split: Split) -> list[int]:
    """The sample ids of the loader's first global batch, from the pure functions that define it."""
    order = epoch_order(split.index.shard, loader._feed.config.sampling.order, 0, 0)
    ids: list[int] = order[: loader._share.batch_size].tolist()
    return ids


@pytest.mark.parametrize(("dtype", "torch_dtype"), [("float32", torch.float32), ("uint8", torch.uint8)])
def test_shapes_types_and_strides(small_split: Split, dtype: str, torch_dtype: torch.dtype) -> None:
    with load(small_split, dtype=dtype) as loader:
        images, labels = next(iter(loader))
    assert images.shape == (4, 3, 32, 32)
    assert images.dtype == torch_dtype
    if dtype == "float32":
        assert images.is_contiguous()
    else:
        assert images.is_contiguous(memory_format=torch.channels_last)
    assert labels.shape == (4,)
    assert labels.dtype == torch.int64


def test_an_epoch_has_len_batches_and_the_next_is_another(small_split: Split) -> None:
    with load(small_split) as loader:
        first, second = epoch(loader), epoch(loader)
        assert loader.epoch == 2
    assert len(first) == len(second) == len(loader) == 7
    assert not same(first, second)


def test_set_epoch_goes_back_to_the_same_batches(small_split: Split) -> None:
    with load(small_split) as loader:
        first = epoch(loader)
        epoch(loader)
        loader.set_epoch(0)
        assert same(epoch(loader), first)


def test_an_epoch_left_early_counts_as_one(small_split: Split) -> None:
    with load(small_split) as loader:
        whole = [epoch(loader) for _ in range(2)]
        loader.set_epoch(0)
        next(iter(loader))
        assert same(epoch(loader), whole[1])


def test_validation_visits_each_sample_once_over_all_ranks(small_split: Split) -> None:
    seen: list[int] = []
    for rank in range(3):
        with load(small_split, train=False, rank=rank, world_size=3) as loader:
            batches = epoch(loader)
            assert len(batches) == len(loader)
        images = torch.cat([images for images, _ in batches])
        ids = list(range(rank, 29, 3))
        assert torch.cat([labels for _, labels in batches]).tolist() == small_split.labels[ids].tolist()
        assert torch.allclose(
            images, normalised(reference(small_split, ids, size=32, resize=40, train=False)), atol=1e-5
        )
        seen += ids
    assert sorted(seen) == list(range(29))


def test_a_rank_without_any_sample_gives_an_empty_epoch(small_split: Split) -> None:
    with load(small_split, train=False, rank=30, world_size=31) as loader:
        assert len(loader) == 0
        assert epoch(loader) == []


def test_two_ranks_see_what_one_sees(small_split: Split) -> None:
    with load(small_split, batch_size=8, drop_last=False) as loader:
        images = torch.cat([images for images, _ in epoch(loader)])
    for rank in range(2):
        with load(small_split, batch_size=4, rank=rank, world_size=2, drop_last=False) as loader:
            assert torch.equal(torch.cat([images for images, _ in epoch(loader)]), images[rank::2])


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batch=st.integers(1, 12), taken=st.integers(0, 30), train=st.booleans(), start=st.integers(0, 2))
def test_a_restored_loader_goes_on_bit_for_bit(
    small_split: Split, batch: int, taken: int, train: bool, start: int
) -> None:
    with load(small_split, batch_size=batch, train=train) as loader:
        loader.set_epoch(start)
        whole = epoch(loader) + epoch(loader)
        taken = min(taken, len(loader))
    with load(small_split, batch_size=batch, train=train) as loader:
        loader.set_epoch(start)
        batches = iter(loader)
        for _ in range(taken):
            next(batches)
        state = loader.state_dict()
    with load(small_split, batch_size=batch, train=train) as loader:
        loader.load_state_dict(state)
        assert same(epoch(loader) + epoch(loader), whole[taken:])


def test_the_rest_of_an_epoch_can_be_shared_by_other_ranks(small_split: Split) -> None:
    with load(small_split, batch_size=3, drop_last=False) as loader:
        batches = iter(loader)
        for _ in range(2):
            next(batches)
        state = loader.state_dict()
        rest = torch.cat([images for images, _ in batches])
    for rank in range(2):
        with load(small_split, batch_size=5, rank=rank, world_size=2, drop_last=False) as loader:
            loader.load_state_dict(state)
            assert torch.equal(torch.cat([images for images, _ in epoch(loader)]), rest[rank::2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 5}, "seed is 5 there and 0 here"),
        ({"samples": 3}, "another size"),
        ({"order": 1}, "another order"),
        ({"window": 4}, "another window"),
        ({"seed": 9}, "another seed"),
        ({"order_seed": 9}, "another order_seed"),
        ({"epoch": None}, "no epoch"),
        ({"labels": 7}, "other samples, or of the same in another order, by their labels"),
        ({"position": 10**9}, "the position in the loader's state must be 29 or less, not 1000000000"),
    ],
)
def test_a_foreign_state_is_refused(small_split: Split, change: dict[str, int | None], message: str) -> None:
    with load(small_split) as loader:
        state = {**loader.state_dict(), **change}
        with pytest.raises(UsageError, match=message):
            loader.load_state_dict({name: value for name, value in state.items() if value is not None})


def test_the_state_of_other_samples_is_refused_and_that_of_a_copy_is_not(tmp_path: Path) -> None:
    images = [jpeg(photo(16, 16))] * 8
    splits = [
        write_split(tmp_path / name, images, labels, short_side=16, shard_size=size)
        for name, labels, size in (("one", [0, 1] * 4, 4), ("copy", [0, 1] * 4, 8), ("other", [1, 0] * 4, 4))
    ]
    one, copy, other = (Loader(split, batch_size=2, train=True, size=16, threads=1) for split in splits)
    copy.load_state_dict(one.state_dict())
    with pytest.raises(UsageError, match="the loader's state is of other samples"):
        other.load_state_dict(one.state_dict())
    other.load_state_dict(
        {name: value for name, value in one.state_dict().items() if name != "labels"}
    )  # an earlier one


def test_the_state_after_a_last_batch_that_is_not_full_goes_on_with_the_next_epoch(small_split: Split) -> None:
    with load(small_split, drop_last=False) as loader:
        for _ in loader:
            state = loader.state_dict()  # as it is saved in the body of a loop
        assert (state["epoch"], state["position"]) == (0, 29)
        following = epoch(loader)
        loader.load_state_dict(state)
        assert epoch(loader) == []
        assert same(epoch(loader), following)
        # Earlier versions wrote where the batch would end if it were full.
        loader.load_state_dict({**{name: value for name, value in state.items() if name != "labels"}, "position": 32})


def test_automatic_choices_are_those_of_a_machine_without_a_gpu(
    small_split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with load(small_split, device="auto") as chosen, load(small_split, device="cpu", decode="cpu") as said:
        assert same(epoch(chosen), epoch(said))


@pytest.mark.parametrize(
    ("capability", "decode"),
    [((9, 0), "hardware"), ((8, 0), "hardware"), ((8, 9), "region"), ((12, 0), "region")],
)
def test_the_decoder_is_chosen_by_the_kind_of_gpu_where_nvjpeg_cannot_be_asked(
    small_split: Split, monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], decode: str
) -> None:
    monkeypatch.setattr("shards.defaults.cpu_suffices", lambda cores, pixels: False)
    monkeypatch.setattr("shards.decode.nvjpeg.engines", lambda _: None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert choose_decoder(small_split, "auto", "gpu", 0) == decode
    assert choose_decoder(small_split, "cpu", "gpu", 0) == "cpu"


def test_the_fast_transform_changes_pixels_a_little(photographs: Split) -> None:
    pixels = []
    for fast in (False, True):
        with load(photographs, batch_size=8, size=224, resize=None, dtype="uint8", fast_idct=fast) as loader:
            pixels.append(epoch(loader)[0][0].int())
    difference = (pixels[0] - pixels[1]).abs()
    assert 0 < difference.max() <= 16
    assert difference.float().mean() < 1.5


@pytest.mark.parametrize("policy", ["trivial", "auto"])
def test_a_policy_treats_a_sample_the_same_in_any_batch_and_after_a_restart(small_split: Split, policy: str) -> None:
    with load(small_split, batch_size=6, augment=policy, dtype="uint8", drop_last=False) as loader:
        whole = torch.cat([images for images, _ in epoch(loader)])
    with load(small_split, batch_size=4, augment=policy, dtype="uint8", drop_last=False) as loader:
        loader.load_state_dict({**loader.state_dict(), "position": 12})
        assert torch.equal(torch.cat([images for images, _ in epoch(loader)]), whole[12:])


def test_a_policy_changes_most_images_and_each_epoch_anew(small_split: Split) -> None:
    options = {"batch_size": 29, "crop": "center", "order": "index"}
    with load(small_split, **options) as loader:
        plain, _ = next(iter(loader))
    with load(small_split, augment="trivial", **options) as loader:
        first, second = (epoch(loader)[0][0] for _ in range(2))
    changed = [(image != other).any().item() for image, other in zip(first, plain, strict=True)]
    assert 18 < sum(changed) < 29
    assert not torch.equal(first, second)


def test_normalised_values_of_a_policy_are_those_of_its_pixels(small_split: Split) -> None:
    with load(small_split, augment="auto", crop="rrc", dtype="uint8") as loader:
        pixels, _ = next(iter(loader))
    with load(small_split, augment="auto", crop="rrc") as loader:
        values, _ = next(iter(loader))
    assert (values - normalised(pixels.contiguous())).abs().max() < 1e-5


def test_a_damaged_sample_is_named(tmp_path: Path) -> None:
    images = [jpeg(photo(40, 44, seed)) for seed in range(9)]
    split = write_split(tmp_path, images, short_side=40)
    path, offset = split.shard_paths[1], int(split.index.offset[8])
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\0" * 300)
    with load(split, train=False) as loader, pytest.raises(ShardfeedError) as caught:
        epoch(loader)
    assert "00000008" in str(caught.value)
    assert "train-00001.tar" in str(caught.value)
    assert f"byte {offset:,}" in str(caught.value)


def test_a_cut_off_shard_is_refused_at_once(tmp_path: Path) -> None:
    split = write_split(tmp_path, [jpeg(photo(40, 40))] * 9, short_side=40)
    path = split.shard_paths[0]
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ShardfeedError, match=r"train-00000\.tar"):
        load(split)


def test_gray_and_progressive_jpegs_come_out_as_pillow_reads_them(tmp_path: Path) -> None:
    gray, progressive = io.BytesIO(), io.BytesIO()
    Image.fromarray(photo(40, 40, 1)).convert("L").save(gray, "JPEG")
    Image.fromarray(photo(40, 40, 2)).save(progressive, "JPEG", progressive=True)
    split = write_split(tmp_path, [gray.getvalue(), progressive.getvalue()], short_side=40)
    with load(split, batch_size=2, train=False, size=40, dtype="uint8") as loader:
        images, _ = next(iter(loader))
    expected = np.stack([decoded(gray.getvalue()), decoded(progressive.getvalue())])
    assert np.array_equal(images.permute(0, 2, 3, 1).numpy(), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 30}, "29 samples, fewer than one global batch of 30"),
        ({"resize": 31}, "crop of 32 pixels"),
        ({"augment": "much"}, "augment must be one of none, trivial, rand, auto, three, not 'much'"),
        ({"check": "md5"}, "check must be one of auto, crc, none, not 'md5'"),
        ({"size": (224, 160)}, r"size must be a whole number, not \(224, 160\)"),
        ({"seed": 1.5}, "seed must be a whole number, not 1.5"),
        ({"batch_size": None}, "batch_size must be a whole number"),
        ({"window": 0}, "window must be 1 or more, not 0"),
        ({"window": 4}, "window is for order='blocks', not 'global'"),
        ({"resize": None, "size": 41}, "crop of 41 pixels"),
        ({"size": 0}, "size must be 1 or more, not 0"),
        ({"crop": "middle"}, "random, center"),
        ({"threads": 0}, "threads"),
        ({"threads": 10**6}, "threads must be from 1 to 1,024, not 1,000,000"),
        ({"rank": 2, "world_size": 2}, "rank"),
        ({"dtype": "float16"}, "float32, uint8"),
        ({"scale": (0.5, 1)}, "scale and ratio are for crop='rrc', not 'random'"),
        ({"ratio": (1, 1), "train": False}, "scale and ratio are for crop='rrc', not 'center'"),
        ({"crop": "rrc", "scale": (1, 0.5)}, r"scale must be \(least, most\), not \(1, 0.5\)"),
        ({"crop": "rrc", "ratio": 1.0}, r"ratio must be two numbers, \(least, most\), not 1.0"),
        ({"crop_pct": 0.9, "train": False}, "resize and crop_pct both say the shorter side"),
        ({"crop_pct": 0.9, "resize": None}, "crop_pct is for crop='center', not 'random'"),
        ({"crop_pct": 1.1, "resize": None, "train": False}, "crop_pct must be 1 or less, not 1.1"),
        (
            {"crop_pct": 0.75, "resize": None, "train": False},
            "^crop_pct=0.75 takes images whose shorter side is 42 pixels, and .+ stores 40: `[^`]+ 42` makes larger ",
        ),
    ],
)
def test_impossible_arguments_are_refused(small_split: Split, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load(small_split, **options)


def loader_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("shardfeed")]


def test_closing_ends_all_threads(small_split: Split) -> None:
    with load(small_split) as loader:
        next(iter(loader))
        assert loader_threads()
    assert loader_threads() == []
    with pytest.raises(ShardfeedError, match="closed"):
        next(iter(loader))


def test_a_loader_closed_by_a_thread_of_its_own_ends_its_threads(
    small_split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the garbage collector does, which runs on whatever thread makes it run."""
    closed = threading.Event()
    with load(small_split) as loader:
        batch = Planner.batch

        def close_and_plan(*args: Any) -> PlannedBatch:
            if not closed.is_set():
                loader._feed.close()
                closed.set()
            return batch(*args)

        def take() -> None:
            with contextlib.suppress(ShardfeedError):
                next(iter(loader))

        monkeypatch.setattr(Planner, "batch", close_and_plan)
        threading.Thread(target=take, daemon=True).start()
        assert closed.wait(10)
        deadline = time.monotonic() + 10
        while loader_threads() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert loader_threads() == []


def test_a_forgotten_loader_ends_its_threads(small_split: Split) -> None:
    loader = load(small_split)
    batches: Iterator[Batch] | None = iter(loader)
    assert batches is not None
    next(batches)
    del loader, batches
    gc.collect()
    assert loader_threads() == []


def test_integers_of_numpy_and_torch_are_numbers_too(small_split: Split) -> None:
    with load(small_split, seed=3, batch_size=4) as loader:
        loader.set_epoch(2)
        expected = epoch(loader)
    with load(small_split, seed=np.int64(3), batch_size=torch.tensor(4)) as loader:
        state: dict[str, Any] = {**loader.state_dict(), "epoch": np.int32(2), "position": torch.tensor(0)}
        loader.load_state_dict(state)
        assert same(epoch(loader), expected)


def test_nothing_is_mirrored_without_flips(small_split: Split) -> None:
    plain = load(small_split, flip=False, crop="center", order="index", drop_last=False)
    with plain, load(small_split, train=False) as expected:
        assert same(epoch(plain), epoch(expected))


def by_sample(split: Split, seed: int, order_seed: int | None) -> tuple[list[int], dict[int, torch.Tensor]]:
    """The samples of an epoch in their order, and the image that each became."""
    with load(split, seed=seed, order_seed=order_seed, drop_last=False) as loader:
        ids = epoch_order(split.index.shard, "global", seed if order_seed is None else order_seed, 0).tolist()
        images, labels = (torch.cat(parts) for parts in zip(*epoch(loader), strict=True))
        assert labels.tolist() == split.labels[ids].tolist()
        return ids, dict(zip(ids, images, strict=True))


def test_order_and_augmentation_have_seeds_of_their_own(small_split: Split) -> None:
    order, images = by_sample(small_split, 3, None)
    same_order, other_images = by_sample(small_split, 4, 3)
    other_order, same_images = by_sample(small_split, 3, 4)
    assert same_order == order != other_order
    assert all(torch.equal(images[i], same_images[i]) for i in order)
    assert not all(torch.equal(images[i], other_images[i]) for i in order)


def test_a_state_of_before_the_order_had_a_seed_of_its_own_goes_on(small_split: Split) -> None:
    with load(small_split, seed=3) as loader, load(small_split, seed=3, order_seed=4) as other:
        old = {name: value for name, value in loader.state_dict().items() if name != "order_seed"}
        loader.load_state_dict({**old, "position": 8})
        assert loader.state_dict()["position"] == 8
        with pytest.raises(UsageError, match="another order_seed: order_seed is 3 there and 4 here"):
            other.load_state_dict(old)


def test_a_loader_cannot_be_pickled_and_says_what_to_pass_on(small_split: Split) -> None:
    with load(small_split) as loader, pytest.raises(UsageError, match="make one in each process"):
        pickle.dumps(loader)


def test_two_threads_cannot_iterate_over_one_loader(small_split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting, go_on = threading.Event(), threading.Event()
    take = FeedLoop.take

    def slow(loop: FeedLoop) -> Delivered:
        waiting.set()
        assert go_on.wait(10)
        return take(loop)

    monkeypatch.setattr(FeedLoop, "take", slow)
    with load(small_split) as loader:
        batches = iter(loader)
        first = threading.Thread(target=next, args=(batches,))
        first.start()
        assert waiting.wait(10)
        with pytest.raises(ShardfeedError, match="two threads iterate over one loader"):
            next(iter(loader))
        go_on.set()
        first.join()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_is_told_to_make_its_own_loader(small_split: Split) -> None:
    with load(small_split) as loader:
        batches = iter(loader)
        next(batches)
        receive, send = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                next(batches)
            except ShardfeedError as error:
                os.write(send, str(error).encode())
            finally:
                os._exit(0)
        os.close(send)
        os.waitpid(child, 0)
        assert "make the loader in the child" in os.read(receive, 1000).decode()
        os.close(receive)
        next(batches)  # the parent goes on


@pytest.mark.parametrize("move", ["state", "epoch"])
def test_moving_a_loader_inside_an_iteration_ends_that_iteration(small_split: Split, move: str) -> None:
    with load(small_split) as loader:
        batches = iter(loader)
        state = loader.state_dict()
        next(batches)
        next(batches)
        if move == "state":
            loader.load_state_dict(state)
        else:
            loader.set_epoch(0)
        with pytest.raises(ShardfeedError, match="moved to another place"):
            next(batches)
        assert len(epoch(loader)) == len(loader)


def test_closing_ends_a_wait_for_bytes_that_do_not_come(small_split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = threading.Event()

    def silent(shards: LocalShards, number: int, buffers: Any, offset: int, stop: threading.Event) -> int:
        waiting.set()
        stop.wait()
        return 0

    monkeypatch.setattr(LocalShards, "files", no_files)
    monkeypatch.setattr(LocalShards, "preadv", silent)
    loader = load(small_split)
    errors: list[BaseException] = []

    def take() -> None:
        try:
            next(iter(loader))
        except ShardfeedError as error:
            errors.append(error)

    consumer = threading.Thread(target=take)
    consumer.start()
    assert waiting.wait(10)
    began = time.monotonic()
    loader.close()
    consumer.join(5)
    assert time.monotonic() - began < 2
    assert not consumer.is_alive()
    assert "closed" in str(errors[0])


@pytest.mark.parametrize(
    ("device", "device_id", "gpus", "message"),
    [
        ("cuda", 0, 1, "device must be auto, cpu or gpu, not 'cuda'; a GPU is \"gpu\""),
        ("cuda:1", 0, 2, "device must be auto, cpu or gpu, not 'cuda:1'"),
        ("gpu", 0, 0, "PyTorch finds no GPU here"),
        ("gpu", 2, 2, "device_id must be from 0 to 1"),
        ("auto", -1, 2, "device_id must be 0 or more, not -1"),
    ],
)
def test_a_device_that_is_not_here_is_one_line(
    small_split: Split, monkeypatch: pytest.MonkeyPatch, device: Any, device_id: int, gpus: int, message: str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    with pytest.raises(UsageError, match=message):
        load(small_split, device=device, device_id=device_id)


def test_a_program_that_never_closes_its_loader_ends_without_a_word(tmp_path: Path) -> None:
    """Also where a finalizer is older than DALI: DALI would take the graphs away from loops that still decode."""
    split = write_split(tmp_path, [jpeg(photo(256, 300))] * 640, short_side=256, shard_size=640)
    code = (
        "import sys, tempfile; directory = tempfile.TemporaryDirectory()\n"
        "from shards import Loader, open_dataset\n"
        "loader = Loader(open_dataset(sys.argv[1])['train'], batch_size=64, train=True)\n"
        "for images, labels in loader: pass\n"
    )
    command = [sys.executable, "-c", code, str(split.root)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def resized_crops(split: Split, ids: list[int], size: int, **area: Any) -> torch.Tensor:
    """uint8 (n, 3, size, size): Pillow's decode, the window of (seed 0, epoch 0, sample), torchvision's resize."""
    images = []
    for sample in ids:
        pixels = torch.from_numpy(decoded(stored(split, sample))).permute(2, 0, 1)
        height, width = pixels.shape[1:]
        sides: dict[str, Any] = {"height": np.array([height]), "width": np.array([width]), **area}
        chosen = crop_windows("rrc", np.array([sample]), **sides, resize=0, size=size, flip=True, seed=0, epoch=0)
        (top, left), (rows, columns) = chosen.anchor[0].tolist(), chosen.shape[0].tolist()
        image = F.resized_crop(pixels, top, left, rows, columns, [size, size], antialias=True)
        images.append(F.hflip(image) if chosen.mirror[0] else image)
    return torch.stack(images)


def one_level(images: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether pixels differ by one level at most, and most not at all: torch rounds between rows and columns too."""
    difference = (images.int() - expected.int()).abs()
    return bool(difference.max() <= 1 and difference.float().mean() < 0.3)


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_random_resized_crops_are_torchvisions(photographs: Split, dtype: str) -> None:
    with load(photographs, batch_size=24, size=96, resize=None, crop="rrc", dtype=dtype) as loader:
        ids = loader_ids(loader, photographs)
        images, _ = next(iter(loader))
    expected = resized_crops(photographs, ids, 96)
    if dtype == "uint8":
        assert one_level(images, expected)
        assert images.is_contiguous(memory_format=torch.channels_last)
    else:
        difference = (images - normalised(expected)).abs()
        assert difference.mean() < 0.02
        assert difference.max() < 1.01 / 255 / min(STD)


def test_random_resized_crops_upsample_small_windows(small_split: Split) -> None:
    with load(small_split, batch_size=29, size=64, resize=None, crop="rrc", dtype="uint8") as loader:
        ids = loader_ids(loader, small_split)
        images, _ = next(iter(loader))
    assert one_level(images, resized_crops(small_split, ids, 64))


def test_resized_crops_have_the_area_and_ratio_that_are_asked_for(small_split: Split) -> None:
    area = {"scale": (0.3, 0.35), "ratio": (0.5, 0.6)}
    with load(small_split, batch_size=29, size=16, resize=None, crop="rrc", dtype="uint8", **area) as loader:
        ids = loader_ids(loader, small_split)
        images, _ = next(iter(loader))
    assert one_level(images, resized_crops(small_split, ids, 16, **area))
    assert not one_level(images, resized_crops(small_split, ids, 16))


@pytest.mark.parametrize(("size", "crop_pct", "resize"), [(32, 0.875, 36), (32, 0.9, 35), (20, 0.95, 21), (40, 1, 40)])
def test_crop_pct_is_timm_s_shorter_side(small_split: Split, size: int, crop_pct: float, resize: int) -> None:
    one: dict[str, Any] = {"train": False, "batch_size": 29, "dtype": "uint8"}
    with load(small_split, **one, size=8, resize=None, crop_pct=crop_pct) as loader:
        loader.set_size(size)  # which keeps the share
        [(images, _)] = epoch(loader)
    with load(small_split, **one, size=size, resize=resize) as loader:
        assert torch.equal(images, epoch(loader)[0][0])


def test_blocks_give_each_sample_once_an_epoch(small_split: Split) -> None:
    with load(small_split, order="blocks", drop_last=False, crop="center") as loader:
        images = torch.cat([images for images, _ in epoch(loader)])
    with load(small_split, order="index", drop_last=False, crop="center") as loader:
        expected = torch.cat([images for images, _ in epoch(loader)])
    # Flips are drawn for the sample, whatever its place.
    assert sorted(images.sum(dim=(1, 2, 3)).tolist()) == sorted(expected.sum(dim=(1, 2, 3)).tolist())


def damaged_split(root: Path, encoding: Encoding = "jpeg") -> Split:
    """Nine images, of which 3 and 4 are damaged."""
    make = ppm if encoding == "raw" else jpeg
    split = write_split(root, [make(photo(40, 44, seed)) for seed in range(9)], short_side=40, encoding=encoding)
    for sample in (3, 4):
        with split.shard_paths[int(split.index.shard[sample])].open("r+b") as file:
            file.seek(int(split.index.offset[sample]) + 20)
            file.write(b"\xff" * 200)
    return split


def assert_left_out_of_every_view(load: Callable[..., Loader], split: Split) -> None:
    """The damaged samples of `damaged_split` are missing in each of the five views that `load` gives, and in no other
    place.
    """
    with (
        pytest.warns(UserWarning, match="skipped"),
        load(split, batch_size=9, train=False, on_error="omit") as loader,
    ):
        ((images, labels, ids),) = loader
    assert ids.tolist() == [0, 1, 2, 5, 6, 7, 8]
    assert [len(view) for view in images] == [7] * 5
    assert len(labels) == 7


def test_damaged_samples_are_replaced_by_the_next_whole_one_and_counted(tmp_path: Path) -> None:
    split = damaged_split(tmp_path)
    with (
        load(split, train=False, on_error="skip", batch_size=9, dtype="uint8") as loader,
        pytest.warns(UserWarning, match="skipped: sample") as warned,
    ):
        [(images, labels)] = epoch(loader)
    assert loader.skipped == 2
    assert sorted(str(each.message).split()[2] for each in warned) == ["00000003", "00000004"]
    ids = [0, 1, 2, 5, 5, 5, 6, 7, 8]
    assert labels.tolist() == ids
    assert torch.equal(images, reference(split, ids, size=32, resize=40, train=False))


@pytest.mark.parametrize("encoding", ["jpeg", "raw"])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_damaged_samples_are_left_out_of_their_batches_and_counted(
    tmp_path: Path, encoding: Encoding, batch_size: int
) -> None:
    split = damaged_split(tmp_path, encoding)
    with load(split, train=False, on_error="omit", batch_size=batch_size, dtype="uint8") as loader:
        batches = epoch(loader)
        assert len(batches) == len(loader)
        assert loader.skipped == 2
    images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert labels.tolist() == [0, 1, 2, 5, 6, 7, 8]
    if encoding == "jpeg":
        assert torch.equal(images, reference(split, [0, 1, 2, 5, 6, 7, 8], size=32, resize=40, train=False))


def undecodable_split(root: Path) -> Split:
    """Nine images, of which 4 is no image: its CRC-32 is right, and no decoder reads it."""
    images = [jpeg(photo(40, 44, seed)) for seed in range(9)]
    images[4] = images[4][:200] + bytes(len(images[4]) - 200)
    return write_split(root, images, short_side=40)


def test_a_sample_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    split = undecodable_split(tmp_path)
    named = (
        r"sample 00000004 in .*train-00000\.tar at byte .* cannot be decoded, and its checksum is right, so it was "
        r"stored like this \(\S.+; DALI: [^\n]+\): .*on_error=.skip."
    )
    with load(split, train=False) as loader, pytest.raises(ShardfeedError, match=named):
        epoch(loader)


def test_a_sample_that_cannot_be_decoded_is_replaced_and_the_epoch_goes_on(tmp_path: Path) -> None:
    split = undecodable_split(tmp_path)
    with load(split, train=False, on_error="skip", batch_size=3, dtype="uint8") as loader:
        batches = epoch(loader)
        assert loader.skipped == 1
    images = torch.cat([images for images, _ in batches])
    assert torch.equal(images, reference(split, [0, 1, 2, 3, 5, 5, 6, 7, 8], size=32, resize=40, train=False))


@pytest.mark.parametrize(("check", "found"), [("auto", True), ("crc", True), ("none", False)])
def test_a_damaged_jpeg_that_still_decodes_is_found_by_its_crc(tmp_path: Path, check: str, found: bool) -> None:
    split = write_split(tmp_path, [jpeg(photo(40, 44, seed)) for seed in range(9)], short_side=40)
    with split.shard_paths[0].open("r+b") as file:
        file.seek(int(split.index.offset[2] + split.index.size[2]) - 40)
        file.write(b"\x12" * 8)
    with load(split, train=False, check=check) as loader:
        context = pytest.raises(ShardfeedError, match="checksum is wrong") if found else contextlib.nullcontext()
        with context:
            epoch(loader)


def test_a_shard_cut_off_while_it_is_read_ends_the_epoch_with_its_name(tmp_path: Path) -> None:
    split = write_split(tmp_path, [jpeg(photo(40, 44, seed)) for seed in range(60)], short_side=40, shard_size=60)
    with load(split, train=False, batch_size=2) as loader:
        batches = iter(loader)
        next(batches)
        split.shard_paths[0].write_bytes(b"")
        with pytest.raises(ShardfeedError, match=r"train-00000\.tar at byte .* is not there"):
            list(batches)


def test_the_size_can_change_between_epochs(small_split: Split) -> None:
    with load(small_split, train=False, batch_size=29, dtype="uint8") as loader:
        for size, resize in ((32, 40), (24, 30), (40, 40), (16, 20)):
            loader.set_size(size, resize)
            [(images, _)] = epoch(loader)
            expected = reference(small_split, list(range(29)), size=size, resize=resize, train=False)
            assert images.shape == (29, 3, size, size)
            assert (images.float() - expected.float()).abs().mean() < 0.6


def test_the_size_of_resized_crops_can_change_between_epochs(small_split: Split) -> None:
    with load(small_split, batch_size=29, crop="rrc", resize=None, size=64, dtype="uint8") as loader:
        ids = loader_ids(loader, small_split)
        epoch(loader)
        loader.set_epoch(0)
        loader.set_size(48)
        [(images, _)] = epoch(loader)
    assert one_level(images, resized_crops(small_split, ids, 48))


def test_the_size_cannot_change_inside_an_epoch(small_split: Split) -> None:
    with load(small_split) as loader:
        batches = iter(loader)
        next(batches)
        with pytest.raises(UsageError, match="between epochs"):
            loader.set_size(24)


@pytest.mark.parametrize("short_side", [32, None])
def test_images_that_are_mostly_smaller_than_the_crop_are_refused_however_they_are_stored(
    short_side: int | None, tmp_path: Path
) -> None:
    split = write_split(tmp_path, [jpeg(photo(32, 32 + i, i)) for i in range(8)], short_side=short_side)
    with pytest.raises(UsageError, match=r"a crop of 40 pixels does not fit into images .* is 32: "):
        load(split, batch_size=4, size=40, resize=None)
    for size, resize in ((32, None), (40, 48)):
        with load(split, batch_size=4, size=size, resize=resize) as loader:
            assert next(iter(loader))[0].shape[-1] == size


def test_original_images_of_which_a_few_are_smaller_than_the_crop_are_enlarged(tmp_path: Path) -> None:
    split = write_split(tmp_path, [jpeg(photo(32 + 9 * (i > 1), 60, i)) for i in range(8)], short_side=None)
    with load(split, batch_size=8, size=40, resize=None) as loader:
        assert next(iter(loader))[0].shape == (8, 3, 40, 40)


def test_a_damaged_index_is_an_error_when_the_loader_is_made(tmp_path: Path) -> None:
    split = write_split(tmp_path, [jpeg(photo(32, 32))] * 8, short_side=32)
    (tmp_path / "train" / "index.parquet").write_bytes(b"damaged")
    with pytest.raises(ShardfeedError, match="cannot be read as an index"):
        load(split, batch_size=4, size=32)
