"""What training reads: the batches of evaluation, and progressive resizing."""

from pathlib import Path

import pytest
import torch

from shards import Loader
from shards.dataset import open_dataset
from tests.helpers.training import setup_of, write_dataset
from train.__main__ import parse_config
from train.config import Config
from train.data import held_out_loader, training_loader, training_size
from train.options import Sizes
from train.recipes import RECIPES


@pytest.mark.parametrize(("recipe", "small"), [("rn50_16", 12), ("rn18_88", 66)])
def test_the_resnet_recipes_grow_from_160_to_192(recipe: str, small: int) -> None:
    config = RECIPES[recipe](Path("unused"))
    sizes = [training_size(config, epoch) for epoch in range(1, config.epochs + 1)]
    assert sizes[:small] == [160] * small
    assert sizes == sorted(sizes)
    assert set(sizes) == {160, 192}
    assert sizes[config.sizes.grow_until :] == [192] * (config.epochs - config.sizes.grow_until)


def test_sizes_in_between_are_multiples_of_32_inside_the_bounds() -> None:
    config = Config(Path("unused"), size=232, sizes=Sizes(start_size=104, grow_from=2, grow_until=8))
    sizes = [training_size(config, epoch) for epoch in range(1, 11)]
    assert sizes == [104, 104, 104, 128, 160, 160, 192, 224, 232, 232]


def test_without_a_start_size_every_epoch_has_the_same() -> None:
    assert {training_size(Config(Path("unused")), epoch) for epoch in range(1, 17)} == {224}


@pytest.mark.parametrize("flip", [True, False])
def test_no_flip_mirrors_nothing(tmp_path: Path, flip: bool) -> None:
    data = write_dataset(tmp_path, {"train": 32})
    words = [
        "--data",
        str(data),
        "--size",
        "16",
        "--batch",
        "32",
        "--micro-batch",
        "32",
        "--device",
        "cpu",
        "--threads",
        "1",
    ]
    setup = setup_of(parse_config([*words, *([] if flip else ["--no-flip"])]))
    split = open_dataset(data)["train"]
    with training_loader(split, setup) as loader, Loader(split, batch_size=32, train=False, size=16) as upright:
        [(images, _)], [(stored, _)] = loader, upright
    as_stored = [any(torch.equal(image, each) for each in stored) for image in images]
    assert all(as_stored) != flip


def test_evaluation_takes_batches_that_training_computes_at_a_time(tmp_path: Path) -> None:
    data = write_dataset(tmp_path, {"train": 8, "validation": 11})
    setup = setup_of(Config(data, size=16, batch=64, micro_batch=4, threads=1, device="cpu"))
    with held_out_loader(open_dataset(data)["validation"], setup) as loader:
        assert [len(labels) for _, labels in loader] == [4, 4, 3]
