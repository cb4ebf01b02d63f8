"""The recipe that a benchmark trains, checked before the libraries that train it are loaded."""

import dataclasses
from pathlib import Path
from typing import Any

from train.config import Config
from train.recipes import find_recipe


def configured(recipe: str, data: Path, **changes: Any) -> Config:
    """The recipe with those of `changes` that are not None, and with images at their full size from the first epoch.

    Raises UsageError for a recipe that does not exist and values that make no sense.
    """
    config = find_recipe(["--recipe", recipe])(data)
    given = {name: value for name, value in changes.items() if value is not None}
    return dataclasses.replace(config, sizes=dataclasses.replace(config.sizes, start_size=None), **given)
