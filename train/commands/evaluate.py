"""`python -m train --data DIR --evaluate FILE...`: the accuracy of saved weights on the held-out split.

With `--eval-set DIR...` in place of --data: on other data sets, such as ImageNet-V2, in a table.

A file of weights, or a checkpoint, says which network it is of and how its images are prepared for evaluation. That
counts in place of the recipe's values; an option on the command line overrides it, and a line says so.
"""

import dataclasses
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch

from model.options import PTH, require_files
from model.weights import About, about_of, read_saved
from shards.common.errors import UsageError
from shards.common.terminal import wrapped
from shards.dataset import Split
from train.checkpoints.weights import describe_run, load_weights
from train.commands.eval_sets import class_columns, evaluation_splits
from train.commands.real import with_real_labels
from train.config import Config
from train.data import held_out_loader
from train.optim.gpu_memory import memory_advice
from train.ranks.distributed import World, joined
from train.report.accuracy import Accuracy, evaluate, figures, has_top5, without
from train.run import set_up


@dataclasses.dataclass(frozen=True)
class Reached:
    """What the weights in a file reach on a split, which is called `name`."""

    weights: Path
    name: str
    accuracy: Accuracy
    classes: int
    """That the network chose among."""


def evaluate_files(config: Config, given: Collection[str] = ()) -> list[Reached]:
    """The accuracy of each file of `config.evaluate` on each data set of `config.eval_set`, or on the data's split.

    Each is evaluated with its own network and sizes of images.

    given: the fields of `config` that override what a file says, of model, blur_pool, size, val_size, val_resize and
    flip_tta. Raises as `load_weights` does, and UsageError for weights of other classes or of images that were
    normalised in another way.
    """
    require_files(PTH, *config.evaluate)
    splits = evaluation_splits(config)
    names = _names(config, splits)
    with joined(config.device, config.memory.offload) as world:
        # All files are read before the first evaluation, which may take long.
        plans = [
            _plan(config, given, split, path, quiet=not world.is_main) for path in config.evaluate for split in splits
        ]
        return [_evaluated(plan, name, world) for plan, name in zip(plans, names * len(config.evaluate), strict=True)]


def _names(config: Config, splits: Sequence[Split]) -> list[str]:
    """What each split is called in a table: its title, or that of its data set where several are evaluated on."""
    if not config.eval_set:
        return [split.title for split in splits]
    last = [place.rstrip("/").rpartition("/")[2] for place in config.eval_set]
    return last if len(set(last)) == len(last) else list(config.eval_set)


@dataclasses.dataclass(frozen=True)
class _Plan:
    path: Path
    split: Split
    config: Config
    classes: int
    """Of the weights."""
    columns: list[int] | None
    """See `class_columns`."""
    real: Path | None
    """ReaL labels."""


def _evaluated(plan: _Plan, name: str, world: World) -> Reached:
    split, right = plan.split, None
    if plan.real is not None:
        split, classes = with_real_labels(split, plan.real)
        right = torch.from_numpy(classes)
    network, setup = set_up(plan.config, plan.classes, world)
    load_weights(network, plan.path)
    micro_batch = setup.batch.micro_batch
    with (
        memory_advice(plan.config, micro_batch, world.size),
        held_out_loader(split, setup, ids=right is not None) as batches,
    ):
        accuracy, _ = evaluate(network, batches, len(split), setup, split.short_title, plan.columns, right)
    return Reached(plan.path, name, accuracy, plan.classes if plan.columns is None else len(plan.columns))


def _plan(config: Config, given: Collection[str], held_out: Split, path: Path, quiet: bool) -> _Plan:
    """How the weights in `path` are evaluated; unless `quiet`, stderr says what they are of."""
    about = about_of(read_saved(path))
    own = config if about is None else merge(config, given, about)
    taken = describe_run(held_out, own)
    if about is None:
        line = f"{path} does not say what it is of, so the options do: {taken}"
    else:
        if (about.mean, about.std) != (taken.mean, taken.std):
            raise UsageError(
                f"{path} is of images normalised by mean {about.mean} and std {about.std}, and the loader has "
                f"{taken.mean} and {taken.std}: evaluate it in a program of your own (model/weights.py)"
            )
        taken = dataclasses.replace(taken, class_names=about.class_names)
        ours, theirs = (dataclasses.asdict(each) for each in (taken, about))
        changed = [
            f"{name} {ours[name]} by the options and {theirs[name]} by the file"
            for name in ours
            if ours[name] != theirs[name]
        ]
        line = f"{path}: {taken}" + (f" ({'; '.join(changed)})" if changed else "")
    if not quiet:
        print(wrapped(line, sys.stderr), file=sys.stderr)
    if about is None:
        return _Plan(path, held_out, own, len(held_out.class_names), None, config.real_labels)
    columns = class_columns(about.class_names, held_out.class_names, path, held_out.place, quiet)
    return _Plan(path, held_out, own, len(about.class_names), columns, config.real_labels)


def merge(config: Config, given: Collection[str], about: About) -> Config:
    """`config` with what a file of weights says of itself, except for the fields that are `given`."""
    sizes, size = config.sizes, about.size
    if "val_size" in given and sizes.val_size is not None:
        size = sizes.val_size
    elif "size" in given:
        size = config.size
    # The file's own shorter side belongs to its own size; for another size it is in proportion.
    resize = about.resize if size == about.size else None
    return dataclasses.replace(
        config,
        model=config.model if "model" in given else about.model,
        blur_pool=config.blur_pool if "blur_pool" in given else about.blur_pool,
        sizes=dataclasses.replace(
            sizes,
            val_size=size,
            val_resize=sizes.val_resize if "val_resize" in given else resize,
            flip_tta=sizes.flip_tta if "flip_tta" in given else about.flip_tta,
        ),
    )


def in_words(reached: Sequence[Reached]) -> str:
    """The figures for people: a line for one, a table for several."""
    if len(reached) == 1:
        return f"{reached[0].name}: {figures(reached[0].accuracy, reached[0].classes)}"
    sets = len({each.name for each in reached}) > 1
    heads = [f"{each.weights} on {each.name}" if sets else str(each.weights) for each in reached]
    width = max(map(len, heads))
    few = not any(has_top5(each.classes) for each in reached)
    lines = [f"{'weights':<{width}}   top-1{'' if few else '   top-5'}     loss"]
    for head, each in zip(heads, reached, strict=True):
        found = each.accuracy
        best = not sets and found.top1 == max(other.accuracy.top1 for other in reached)
        top5 = "" if few else f"  {found.top5:5.2f}%"
        said = f"{found.top1:5.2f}%{top5}  {found.loss:7.4f}"
        lines.append(f"{head:<{width}}  {said}{'  best' if best else ''}{without(found)}")
    return "\n".join(lines)


def as_json(reached: Sequence[Reached]) -> Any:
    """The figures for programs: of one alone; by file; or by file and data set."""
    if len(reached) == 1:
        return reached[0].accuracy
    if len({each.name for each in reached}) == 1:
        return {str(each.weights): each.accuracy for each in reached}
    files = dict.fromkeys(each.weights for each in reached)
    return {str(file): {each.name: each.accuracy for each in reached if each.weights == file} for file in files}
