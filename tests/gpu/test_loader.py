"""Batches on a GPU: the same crop windows and pixels as on a CPU, within the rounding of other decoders."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from shards import Loader
from shards.dataset import Split
from shards.format.ppm import ppm
from tests.conftest import photo, write_split

pytestmark = pytest.mark.gpu


def load(split: Split, **options: Any) -> Loader:
    return Loader(split, **{"batch_size": 4, "train": True, "size": 32, "resize": 40, "threads": 2, **options})


def test_the_gpu_graph_agrees_with_the_cpu_graph(small_split: Split) -> None:
    with load(small_split, batch_size=29) as loader:
        expected, labels = next(iter(loader))
    with load(small_split, batch_size=29, device="gpu") as loader:
        images, gpu_labels = next(iter(loader))
    assert images.is_cuda
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(gpu_labels.cpu(), labels)
    # nvJPEG's inverse DCT may differ from libjpeg-turbo's by one step of 255, which is 0.0175 here.
    assert (images.cpu() - expected).abs().mean() < 0.02


@pytest.mark.parametrize("decode", ["cpu", "region", "hardware", "hybrid"])
@pytest.mark.parametrize("crop", ["random", "center", "rrc"])
def test_every_decoder_for_a_gpu_shows_the_same_windows(small_split: Split, decode: str, crop: str) -> None:
    with load(small_split, batch_size=29, crop=crop) as loader:
        expected, _ = next(iter(loader))
    with load(small_split, batch_size=29, crop=crop, device="gpu", decode=decode) as loader:
        images, _ = next(iter(loader))
    assert (images.cpu() - expected).abs().mean() < 0.03


@pytest.mark.parametrize("crop", ["random", "rrc"])
def test_stored_pixels_reach_a_gpu_as_they_are(tmp_path: Path, crop: str) -> None:
    raw = write_split(tmp_path, [ppm(photo(40, 40 + i, i)) for i in range(12)], short_side=40, encoding="raw")
    with load(raw, batch_size=12, crop=crop) as loader:
        expected, _ = next(iter(loader))
    with load(raw, batch_size=12, crop=crop, device="gpu") as loader:
        images, _ = next(iter(loader))
    assert (images.cpu() - expected).abs().mean() < 0.02


@pytest.mark.parametrize("options", [{}, {"resize": 60}, {"augment": "trivial"}])
def test_padding_is_a_cpus(small_split: Split, options: dict[str, Any]) -> None:
    with load(small_split, batch_size=29, padding=16, **options) as loader:
        expected, _ = next(iter(loader))
    with load(small_split, batch_size=29, padding=16, device="gpu", **options) as loader:
        images, _ = next(iter(loader))
    assert (images.cpu() - expected).abs().mean() < 0.03


def test_the_gpu_graph_puts_out_float16(small_split: Split) -> None:
    with load(small_split, batch_size=29, device="gpu") as loader:
        expected, _ = next(iter(loader))
    with load(small_split, batch_size=29, device="gpu", dtype="float16") as loader:
        images, _ = next(iter(loader))
    assert images.dtype == torch.float16
    assert (images.float() - expected).abs().max() < 0.01


@pytest.mark.parametrize("lends", [False, True])
def test_small_batches_that_are_decoded_together_are_those_of_a_cpu(small_split: Split, lends: bool) -> None:
    with load(small_split, decode="cpu") as loader:
        expected = list(loader)
    with load(small_split, device="gpu", decode="cpu") as loader:
        assert loader._feed.config.graph.batch_size == 28
        loader._feed.config = replace(loader._feed.config, lends=lends)
        for number, (images, labels) in enumerate(loader):
            torch.cuda._sleep(10_000_000)  # type: ignore[no-untyped-call]  # the consumer is late: nothing may be written over meanwhile
            assert torch.equal(labels.cpu(), expected[number][1])
            assert (images.cpu() - expected[number][0]).abs().mean() < 0.02
    assert number == 6
