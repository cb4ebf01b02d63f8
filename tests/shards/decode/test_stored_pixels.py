"""The loader on shards that hold decoded pixels: the same batches as from JPEGs of the same pixels."""

import collections
import contextlib
import itertools
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torchvision.transforms.v2 import functional as F

from shards import Loader
from shards.common.errors import ShardfeedError, UsageError
from shards.dataset import Split
from shards.decode import stored_pixels
from shards.feed.local import LocalShards
from shards.format.ppm import ppm
from tests.conftest import decoded, jpeg, photo, write_split
from tests.helpers.datasets import no_files


def epoch(split: Split, **options: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
    with Loader(split, **{"batch_size": 4, "train": True, "size": 32, "resize": 40, "threads": 2, **options}) as loader:
        return [(images.clone(), labels.clone()) for images, labels in loader]


def equal(first: list[tuple[torch.Tensor, torch.Tensor]], second: list[tuple[torch.Tensor, torch.Tensor]]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(first, second, strict=True)
    )


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Split, Split]:
    """The same 23 images as JPEGs and as pixels."""
    sizes = [(40, 40 + 3 * i) if i % 2 else (40 + i, 40) for i in range(23)]
    images = [jpeg(photo(height, width, seed)) for seed, (height, width) in enumerate(sizes)]
    encoded = write_split(tmp_path_factory.mktemp("jpeg"), images, short_side=40)
    pixels = [ppm(decoded(image)) for image in images]
    return encoded, write_split(tmp_path_factory.mktemp("raw"), pixels, short_side=40, encoding="raw")


@pytest.mark.parametrize("crop", ["random", "center", "rrc"])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_batches_are_those_of_jpegs(pair: tuple[Split, Split], crop: str, dtype: str) -> None:
    encoded, raw = pair
    expected = epoch(encoded, crop=crop, dtype=dtype)
    assert equal(epoch(raw, crop=crop, dtype=dtype), expected)


@pytest.mark.parametrize("how", [{"crop": "center"}, {"crop": "rrc"}, {"padding": 4}, {"augment": "trivial"}])
def test_another_mean_and_deviation_normalise_the_same_pixels(pair: tuple[Split, Split], how: dict[str, Any]) -> None:
    mean, std = (0.5, 0.25, 0.0), (0.5, 1.0, 0.125)
    for split in pair:
        pixels = epoch(split, dtype="uint8", **how)
        for (found, _), (expected, _) in zip(epoch(split, mean=mean, std=std, **how), pixels, strict=True):
            values = F.normalize(F.to_dtype(expected, torch.float32, scale=True), mean, std)
            assert (found - values).abs().max() < 1e-5


@pytest.mark.parametrize(("augment", "crop"), [("trivial", "rrc"), ("rand", "random")])
def test_policies_come_between_the_window_and_the_mirror(pair: tuple[Split, Split], augment: str, crop: str) -> None:
    encoded, raw = pair
    assert equal(epoch(raw, crop=crop, augment=augment), epoch(encoded, crop=crop, augment=augment))


def test_sizes_change_between_epochs(pair: tuple[Split, Split]) -> None:
    """40 is what is stored, so that nothing is resized in the second of the three."""

    def epochs(split: Split) -> list[tuple[torch.Tensor, torch.Tensor]]:
        found = []
        with Loader(split, batch_size=4, train=True, size=24, resize=30, dtype="uint8", threads=2) as loader:
            for size, resize in ((24, 30), (32, 40), (28, 33)):
                loader.set_size(size, resize)
                found += [(images.clone(), labels) for images, labels in loader]
        return found

    encoded, raw = pair
    assert equal(epochs(raw), epochs(encoded))


def test_batches_stay_as_they_are_when_the_loader_moves_and_closes(pair: tuple[Split, Split]) -> None:
    _, raw = pair
    expected = epoch(raw)
    with Loader(raw, batch_size=4, train=True, size=32, resize=40, threads=2) as loader:
        kept = list(itertools.islice(loader, 2))
        for place in range(3):
            loader.set_epoch(place)
            next(iter(loader))
        loader.set_epoch(0)
        again = list(loader)
    assert equal(kept, expected[:2])
    assert equal(again, expected)


def test_memory_format_is_that_of_jpegs(pair: tuple[Split, Split]) -> None:
    for dtype in ("uint8", "float32"):
        first, second = (epoch(split, dtype=dtype)[0][0] for split in pair)
        assert first.stride() == second.stride()
        assert first.dtype == second.dtype


def test_images_of_other_sizes_are_resized(tmp_path: Path) -> None:
    images = [jpeg(photo(50 + 3 * i, 70 - i, i)) for i in range(8)]
    encoded = write_split(tmp_path / "jpeg", images, short_side=None)
    raw = write_split(tmp_path / "raw", [ppm(decoded(image)) for image in images], short_side=None, encoding="raw")
    assert equal(epoch(raw, dtype="uint8"), epoch(encoded, dtype="uint8"))


def test_only_the_rows_of_the_window_are_read(pair: tuple[Split, Split], monkeypatch: pytest.MonkeyPatch) -> None:
    _, raw = pair
    read: list[int] = []
    preadv = os.preadv

    def counted(file: int, buffers: Any, offset: int) -> int:
        read.append(sum(len(buffer) for buffer in buffers))
        return preadv(file, buffers, offset)

    monkeypatch.setattr(LocalShards, "files", no_files)
    monkeypatch.setattr("shards.feed.local.os.preadv", counted)
    epoch(raw, train=False, crop="center", order="index", batch_size=len(raw))
    # Batches of the next epochs are read ahead, whose windows are the same.
    # The first sample of each shard is read whole, to be checked.
    rows, whole = (32 * 3 * raw.index.width).tolist(), raw.index.size.tolist()
    assert len(read) >= len(raw)
    assert set(read) <= {*rows, *whole}
    assert sum(size in whole for size in read) == len(raw.info.shards)


@pytest.mark.parametrize("crop", ["random", "rrc"])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_batches_read_sample_by_sample_are_those_of_the_compiled_loop(
    pair: tuple[Split, Split], crop: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where some shards are files of the cache and others are read by byte ranges."""
    _, raw = pair
    expected = epoch(raw, crop=crop, dtype=dtype)
    files = LocalShards.files

    @contextlib.contextmanager
    def every_other(shards: LocalShards, numbers: npt.NDArray[np.int32]) -> Iterator[npt.NDArray[np.intc]]:
        with files(shards, numbers) as descriptors:
            yield np.where(np.arange(len(numbers)) % 2 == 0, descriptors, np.intc(-1))

    monkeypatch.setattr(LocalShards, "files", every_other)
    assert equal(epoch(raw, crop=crop, dtype=dtype), expected)


def damage(split: Split, sample: int) -> None:
    index = split.index
    with split.shard_paths[index.shard[sample]].open("r+b") as file:
        file.seek(int(index.offset[sample]) + int(index.size[sample]) - 1)
        last = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([last[0] ^ 255]))


@pytest.fixture
def own(tmp_path: Path) -> Split:
    return write_split(tmp_path, [ppm(photo(40, 48, i)) for i in range(8)], short_side=40, encoding="raw")


def test_damaged_samples_are_replaced_by_the_next_whole_one_where_that_is_wanted(own: Split) -> None:
    damage(own, 3)
    damage(own, 4)
    options: dict[str, Any] = {"order": "index", "dtype": "uint8", "on_error": "skip"}
    with Loader(own, batch_size=8, train=False, size=40, resize=40, threads=1, **options) as loader:
        images, labels = next(iter(loader))
        assert loader.skipped == 2
    assert labels.tolist() == own.labels[[0, 1, 2, 5, 5, 5, 6, 7]].tolist()
    assert all(np.array_equal(images[i].permute(1, 2, 0).numpy(), photo(40, 48, 5)[:, 4:44]) for i in (3, 4, 5))


@pytest.mark.parametrize(("check", "found"), [("auto", False), ("crc", True)])
def test_damaged_pixels_are_found_by_their_crc_where_that_is_asked_for(own: Split, check: Any, found: bool) -> None:
    damage(own, 3)
    refused = pytest.raises(ShardfeedError, match=r"00000003.*checksum") if found else contextlib.nullcontext()
    with Loader(own, batch_size=8, train=False, size=40, resize=40, threads=1, check=check) as loader, refused:
        next(iter(loader))


def test_a_shard_of_another_data_set_is_found_by_its_first_sample(own: Split, tmp_path: Path) -> None:
    other = write_split(
        tmp_path / "other", [ppm(photo(40, 48, 9 - i)) for i in range(8)], short_side=40, encoding="raw"
    )
    own.shard_paths[0].write_bytes(other.shard_paths[0].read_bytes())
    loader = Loader(own, batch_size=8, train=False, size=40, resize=40, threads=1)
    with loader, pytest.raises(ShardfeedError, match=r"00000000 in .*checksum is wrong"):
        next(iter(loader))


def test_a_shard_cut_off_under_the_loader_is_an_error_that_names_the_sample(own: Split) -> None:
    with Loader(own, batch_size=4, train=True, size=32, resize=40, threads=1) as loader:
        os.truncate(own.shard_paths[0], 4096)
        batches = itertools.chain.from_iterable(itertools.repeat(loader))
        with pytest.raises(ShardfeedError, match=r"sample 0000000\d in .*cut off"):
            collections.deque(batches, maxlen=0)


def test_no_more_samples_are_worked_on_at_a_time_than_threads(own: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    at_work: list[None] = []
    most: list[int] = []

    def slow(files: npt.NDArray[np.intc], *_: Any) -> npt.NDArray[np.bool_]:
        at_work.append(None)
        most.append(len(at_work))
        time.sleep(0.01)
        at_work.pop()
        return files >= 0  # the others are for the caller

    monkeypatch.setattr("shards.decode.stored_pixels._read_and_finish", slow)
    epoch(own, batch_size=8, dtype="uint8", crop="center", threads=2)
    assert max(most) == 2


def test_all_samples_of_a_cold_disk_are_asked_for_before_the_first_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[tuple[str, int]] = []

    def noted(name: str, result: Callable[[int], bool]) -> Callable[..., bool]:
        def call(file: int, *_: Any) -> bool:
            calls.append((name, int(file)))
            return result(file)

        return call

    monkeypatch.setattr(stored_pixels, "read_cached", noted("cached", lambda file: file < 5))
    monkeypatch.setattr(stored_pixels, "will_read", lambda file, offset, size: calls.append(("ask", int(file))))
    monkeypatch.setattr(stored_pixels, "read_at", noted("wait", lambda file: file != 7))
    monkeypatch.setattr(stored_pixels, "_finish", lambda i, *_: calls.append(("finish", i)))
    files, numbers, nothing = np.array([3, -1, 5, 4, 7], np.intc), np.arange(5), [None] * 9
    loop: Any = stored_pixels._read_and_finish
    done = loop.py_func(files, numbers, np.full(5, -1), np.zeros(9, np.uint8), numbers, numbers, *nothing)
    assert done.tolist() == [True, False, True, True, False]
    assert calls == [
        *[("cached", 3), ("finish", 0), ("cached", 5), ("ask", 5), ("ask", 4), ("ask", 7)],
        *[("wait", 5), ("finish", 2), ("wait", 4), ("finish", 3), ("wait", 7)],
    ]


def test_a_decoder_for_stored_pixels_is_refused(own: Split) -> None:
    with pytest.raises(UsageError, match="stored decoded"):
        Loader(own, batch_size=4, train=True, size=32, resize=40, decode="region")


def test_one_image_a_batch(own: Split) -> None:
    batches = epoch(own, batch_size=1, train=False, crop="center", dtype="uint8")
    assert [tuple(images.shape) for images, _ in batches] == [(1, 3, 32, 32)] * 8
    assert np.array_equal(batches[5][0][0].permute(1, 2, 0).numpy(), photo(40, 48, 5)[4:36, 8:40])
