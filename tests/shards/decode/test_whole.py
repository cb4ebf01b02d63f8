"""Small JPEGs, which are decoded whole on a CPU: the same batches as from regions."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shards import Loader
from shards.common.errors import ShardfeedError
from shards.dataset import Split
from tests.conftest import jpeg, photo, write_split

HOW: list[dict[str, Any]] = [
    {},
    {"dtype": "uint8"},
    {"padding": 4, "dtype": "uint8"},
    {"size": 24, "resize": 31},
    {"crop": "rrc", "dtype": "uint8"},
    {"crop": "rrc", "interpolation": "bicubic"},
    {"augment": "trivial"},
    {"train": False},
]


@pytest.mark.parametrize("how", HOW)
def test_batches_are_those_of_regions(small_split: Split, how: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def epoch(whole: bool) -> list[torch.Tensor]:
        options = {"batch_size": 8, "train": True, "size": 32, "resize": 40, "threads": 2, **how}
        with Loader(small_split, **options) as loader:
            assert loader._feed.config.graph.whole == whole
            return [images.clone() for images, _ in loader]

    found = epoch(whole=True)
    monkeypatch.setattr("shards.defaults.SMALL", 0)
    for images, expected in zip(found, epoch(whole=False), strict=True):
        assert torch.equal(images, expected)
        assert images.stride() == expected.stride()


def test_images_that_are_not_small_are_decoded_by_region(tmp_path: Path) -> None:
    split = write_split(tmp_path, [jpeg(photo(80, 90, seed)) for seed in range(3)], short_side=80)
    with Loader(split, batch_size=2, train=True, size=64, resize=80) as loader:
        assert not loader._feed.config.graph.whole


def test_an_image_smaller_than_the_index_says_is_named(tmp_path: Path) -> None:
    split = write_split(tmp_path, [jpeg(photo(40, 44, seed)) for seed in range(8)], short_side=40)
    width = np.where(np.arange(8) == 3, 60, split.index.width)
    vars(split)["index"] = dataclasses.replace(split.index, width=width)
    with Loader(split, batch_size=8, train=False, size=40, resize=40) as loader:
        assert loader._feed.config.graph.whole
        with pytest.raises(ShardfeedError, match=r"sample 00000003 in .*smaller than the index says"):
            next(iter(loader))
