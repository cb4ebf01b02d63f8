"""What a command line asks for in vain is refused here, before torch and DALI are loaded, which takes seconds."""

import os
from collections.abc import Collection

from model import names
from model.options import require_weights
from shards.common.atomic import refuse_unwritable
from shards.common.errors import UsageError
from shards.dataset import Split
from shards.dataset.sizes import shorter_side
from shards.remote.urls import is_url
from train.checkpoints.earlier import result_of
from train.commands.eval_sets import evaluation_splits
from train.commands.unused import changed, in_words, them
from train.config import Config
from train.data import held_out_split, training_split
from train.report.result import Result


def refuse(config: Config, given: Collection[str] = ()) -> Result | None:
    """Raises UsageError for a wrong name, path, split or size, and for an --out that cannot be written or is taken.

    given: the fields of `config` that the command line sets.
    Returns the result of the run if it is complete already. A data set at a URL is looked at later, when it is opened
    anyway; so is --out by ranks on several machines, of which only the first may see it.
    """
    for name in (config.model, *map(str, filter(names.is_model, config.evaluate))):
        names.check_early(name)
    require_weights(*(path for path in config.evaluate if not names.is_model(path)))
    if config.start.init is not None:
        require_weights(config.start.init, what="--init a file of weights")
    result = None
    if not config.evaluate and not config.find_lr and _on_one_machine():
        result = result_of(config)
    if config.eval_set:
        if not any(map(is_url, config.eval_set)):
            _refuse_cache(config, given, evaluation_splits(config))
    elif not is_url(config.data):
        _refuse_cache(config, given, _refuse_data(config))
    if result is None and not config.evaluate and _on_one_machine():
        refuse_unwritable("--out", config.out, directory=True)
    return result


def _on_one_machine() -> bool:
    ranks = os.environ.get("WORLD_SIZE", "1")
    return os.environ.get("LOCAL_WORLD_SIZE", ranks) == ranks


def _refuse_data(config: Config) -> list[Split]:
    """Raises UsageError for splits that are not there, and for crops that do not fit into their images.

    Returns the splits.
    """
    splits = []
    if not config.evaluate:
        splits.append(training_split(config))
        # --size is the largest that training comes to.
        shorter_side(splits[0], config.size, None, config.crop)
    held_out = None if config.find_lr else held_out_split(config)
    if held_out is not None:
        splits.append(held_out)
        if not config.evaluate:  # whose sizes are those of the files
            val_size, resize = config.sizes.val_size, config.sizes.val_resize
            side = "--val-size" if val_size else "--size"
            shorter_side(held_out, val_size or config.size, resize, "center", side, larger="--val-resize")
    return splits


def _refuse_cache(config: Config, given: Collection[str], splits: list[Split]) -> None:
    """Raises UsageError for options of the cache where all shards are files of this machine.

    The directory of the cache may hold the index of tars that were indexed in place.
    """
    if any(split.origin is not None for split in splits):
        return
    names = ["cache_size"] if any(split.manifest.indexed for split in splits) else ["cache_dir", "cache_size"]
    if idle := changed(config, given, names):
        raise UsageError(f"{in_words(idle)} nothing for shards on this machine: leave {them(idle)} out")
