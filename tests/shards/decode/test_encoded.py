"""Encoded samples in one buffer: DALI gets rows where it may, and the batches are the same."""

from pathlib import Path

import numpy as np
import pytest
import torch

from shards import Loader
from shards.common.errors import ShardfeedError
from shards.dataset import Split
from shards.decode.buffers import ROWS, Buffers, EncodedSamples
from tests.helpers.datasets import jpeg, photo, write_split

END = b"\xff\xd9"


def encoded(*samples: bytes) -> EncodedSamples:
    """These bytes, read into a buffer that held something else."""
    buffers = Buffers()
    buffers.take((1000,), np.uint8)[:] = 7
    found = EncodedSamples.room_for(np.array([len(sample) for sample in samples]), buffers)
    for room, sample in zip(found, samples, strict=True):
        room[:] = np.frombuffer(sample, np.uint8)
    return found


def test_each_sample_is_its_bytes() -> None:
    found = encoded(b"one", b"", b"three")
    assert [bytes(sample) for sample in found] == [b"one", b"", b"three"]
    assert len(found) == 3


def test_jpegs_begin_at_equal_distances() -> None:
    rows = encoded(b"a" + END, b"bcd" + END).jpeg_rows()
    assert rows is not None
    assert rows.tolist() == [[*b"a" + END, 7, 7], [*b"bcd" + END]]


@pytest.mark.parametrize("other", [b"bcd", b"bcd" + END[:1], b"d", b""])
def test_a_sample_that_does_not_end_as_a_jpeg_keeps_its_length(other: bytes) -> None:
    assert encoded(b"a" + END, other).jpeg_rows() is None


def test_a_long_sample_takes_no_room_from_many_short_ones() -> None:
    samples = [END] * 4 + [bytes(ROWS // 4) + END]
    found = encoded(*samples)
    assert found.jpeg_rows() is None
    assert found.buffer.size == sum(map(len, samples))
    assert [bytes(sample) for sample in found] == samples


def test_a_sample_can_take_the_place_of_another() -> None:
    found = encoded(b"a" + END, b"bcd" + END)
    found[1] = np.frombuffer(b"longer" + END, np.uint8)
    assert [bytes(sample) for sample in found] == [b"a" + END, b"longer" + END]
    assert found.jpeg_rows() is None


@pytest.mark.parametrize("resize", [40, 160])
def test_batches_are_those_of_a_list(small_split: Split, resize: int, monkeypatch: pytest.MonkeyPatch) -> None:
    as_rows: list[bool] = []

    def epoch() -> list[torch.Tensor]:
        with Loader(small_split, batch_size=8, train=True, size=32, resize=resize, threads=2) as loader:
            return [images.clone() for images, _ in loader]

    def watched(samples: EncodedSamples) -> np.ndarray | None:
        rows = found_rows(samples)
        as_rows.append(rows is not None)
        return rows

    found_rows = EncodedSamples.jpeg_rows
    monkeypatch.setattr(EncodedSamples, "jpeg_rows", watched)
    found = epoch()
    assert all(as_rows)
    monkeypatch.setattr(EncodedSamples, "jpeg_rows", lambda samples: None)
    expected = epoch()
    assert len(found) == len(expected) == 3
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


def test_an_image_that_was_stored_without_its_end_is_no_image(tmp_path: Path) -> None:
    """What lies behind it in the buffer is not read as its end."""
    images = [jpeg(photo(40, 44, seed)) for seed in range(8)]
    images[3] = images[3][: len(images[3]) * 3 // 4]
    split = write_split(tmp_path, images, short_side=40)
    named = pytest.raises(ShardfeedError, match=r"sample 00000003 in .* cannot be decoded")
    with Loader(split, batch_size=8, train=False, size=40, resize=40) as loader, named:
        next(iter(loader))
