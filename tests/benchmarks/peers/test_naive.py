"""The naive path delivers what torchvision's transforms do, without end, and leaves no process behind."""

import multiprocessing
from typing import Any

import pytest
import torch
from PIL import Image
from torchvision.transforms import functional

from benchmarks.measure.settings import BatchSpec, DType
from benchmarks.peers.naive import PilImages
from benchmarks.processes.dataloader import batches_of, random_loader
from shards.decode import MEAN, STD
from tests.conftest import photo


def _rows(modes: tuple[str, ...] = ("RGB", "L", "CMYK", "RGB", "RGB")) -> list[dict[str, Any]]:
    return [
        {"image": Image.fromarray(photo(50, 50, seed)).convert(mode), "label": seed} for seed, mode in enumerate(modes)
    ]


def test_a_picture_is_torchvisions_resize_flip_and_normalisation() -> None:
    rows = _rows()
    pictures = PilImages(rows, BatchSpec(resize=32, size=32))
    for number, row in enumerate(rows):
        expected = functional.to_tensor(functional.resize(row["image"].convert("RGB"), [32]))
        expected = functional.normalize(expected, list(MEAN), list(STD))
        image, label = pictures[number]
        assert label == number
        assert torch.equal(image, expected) or torch.equal(image, expected.flip(2))


def test_flips_and_crops_are_drawn_anew() -> None:
    pictures = PilImages(_rows(), BatchSpec(resize=40, size=32))
    assert len({pictures[0][0].numpy().tobytes() for _ in range(8)}) > 1


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_batches_go_on_beyond_an_epoch(dtype: DType) -> None:
    spec = BatchSpec(batch_size=2, resize=40, size=32, dtype=dtype)
    seen = []
    with batches_of(lambda: random_loader(PilImages(_rows(), spec), spec, workers=0)) as stream:
        for _ in range(5):
            images, labels = next(stream)
            assert images.shape == (2, 3, 32, 32)
            assert images.dtype == getattr(torch, dtype)
            assert labels.dtype == torch.int64
            seen += labels.tolist()
    assert sorted(seen) == sorted([0, 1, 2, 3, 4] * 2)
    assert seen[:5] != seen[5:]


def test_worker_processes_end_with_the_block() -> None:
    before = set(multiprocessing.active_children())
    spec = BatchSpec(batch_size=2, resize=40, size=32)
    with batches_of(lambda: random_loader(PilImages(_rows(), spec), spec, workers=1)) as stream:
        next(stream)
        assert set(multiprocessing.active_children()) - before
    assert not set(multiprocessing.active_children()) - before
