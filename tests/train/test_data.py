"""Progressive resizing: the size of each epoch."""

from pathlib import Path

import pytest

from train.config import Config
from train.data import training_size
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
