"""Named training configurations. Each says where it comes from, what it should reach, and whether it has been run."""

from collections.abc import Callable, Sequence
from pathlib import Path

from shards.errors import UsageError
from train.config import Config

DEFAULT = "cnn"


def cnn(data: Path) -> Config:
    """The reference recipe of the eight-convolution network: the defaults of `Config`.

    AdamW under a one-cycle learning rate, 64 images per optimizer step. Source: the network and the values are
    this project's own. Five epochs of it at size 32 on 10,000 CIFAR-10 images as JPEG should reach 53% top-1 or
    more on the test split. It has not been run on ImageNet, and no accuracy is claimed there.
    """
    return Config(data=data, recipe="cnn")


def demo(data: Path) -> Config:
    """The reference recipe, small enough for two CPU cores: four epochs at 32 pixels.

    For the 2,000 synthetic images of `make demo`, where it should reach 90% top-1 or more in two minutes.
    """
    return Config(data=data, recipe="demo", size=32, epochs=4)


RECIPES: dict[str, Callable[[Path], Config]] = {"cnn": cnn, "demo": demo}


def find_recipe(words: Sequence[str]) -> Callable[[Path], Config]:
    """The recipe that `--recipe NAME` or `--recipe=NAME` asks for (the last one counts), or the default.

    It must be known before the other words are parsed, because it gives them their defaults.
    Raises UsageError for a name that is no recipe.
    """
    name = DEFAULT
    for position, word in enumerate(words):
        if word == "--recipe":
            name = "".join(words[position + 1 : position + 2])
        elif word.startswith("--recipe="):
            name = word.removeprefix("--recipe=")
    if name not in RECIPES:
        raise UsageError(f"unknown recipe {name!r}: choose one of {', '.join(RECIPES)}")
    return RECIPES[name]
