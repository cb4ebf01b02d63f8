"""What a command line asks for in vain is refused here, before torch and DALI are loaded, which takes seconds."""

import os

from model import names
from model.options import PTH, require_files
from shards.common.atomic import refuse_unwritable
from shards.dataset.sizes import shorter_side
from shards.remote.urls import is_url
from train.checkpoints.earlier import result_of
from train.commands.eval_sets import evaluation_splits
from train.config import Config
from train.data import held_out_split, training_split
from train.report.result import Result


def refuse(config: Config) -> Result | None:
    """Raises UsageError for a wrong name, path, split or size, and for an --out that cannot be written or is taken.

    Returns the result of the run if it is complete already. A data set at a URL is looked at later, when it is opened
    anyway; so is --out by ranks on several machines, of which only the first may see it.
    """
    for name in (config.model, *map(str, filter(names.is_model, config.evaluate))):
        names.check_early(name)
    require_files(PTH, *(path for path in config.evaluate if not names.is_model(path)))
    if config.start.init is not None:
        require_files("--init a file of weights", config.start.init)
    result = None
    if not config.evaluate and not config.find_lr and _on_one_machine():
        result = result_of(config)
    if config.eval_set:
        if not any(map(is_url, config.eval_set)):
            evaluation_splits(config)
    elif not is_url(config.data):
        _refuse_data(config)
    if result is None and not config.evaluate and not config.check and _on_one_machine():
        # --check says it in its turn.
        refuse_unwritable("--out", config.out, directory=True)
    return result


def _on_one_machine() -> bool:
    ranks = os.environ.get("WORLD_SIZE", "1")
    return os.environ.get("LOCAL_WORLD_SIZE", ranks) == ranks


def _refuse_data(config: Config) -> None:
    """Raises UsageError for splits that are not there, and for crops that do not fit into their images."""
    if not config.evaluate:
        # --size is the largest that training comes to.
        shorter_side(training_split(config), config.size, None, config.crop)
    held_out = None if config.find_lr else held_out_split(config)
    if held_out is not None and not config.evaluate:  # whose sizes are those of the files
        val_size, resize = config.sizes.val_size, config.sizes.val_resize
        option = "--val-size" if val_size else "--size"
        shorter_side(held_out, val_size or config.size, resize, "center", option, larger="--val-resize")
