"""The recipe that a benchmark trains, checked before the libraries that train it are loaded."""

import dataclasses
from pathlib import Path
from typing import Any

from model.names import check_early
from train.config import Config
from train.options import require_optimizer
from train.recipes import find_recipe


def configured(recipe: str, data: Path, **changes: Any) -> Config:
    """The recipe with those of `changes` that are not None, and with images at their full size from the first epoch.

    Raises UsageError for a recipe that does not exist and values that make no sense, MissingDependency where timm is
    not installed and the recipe needs it.
    """
    config = find_recipe(["--recipe", recipe])(data)
    given = {name: value for name, value in changes.items() if value is not None}
    config = dataclasses.replace(config, sizes=dataclasses.replace(config.sizes, start_size=None), **given)
    check_early(config.model)
    require_optimizer(config.update.optimizer)
    return config
