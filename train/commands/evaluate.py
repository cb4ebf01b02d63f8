"""`python -m train --data DIR --evaluate FILE...`: the accuracy of saved weights on the held-out split.

With `--eval-set DIR...` in place of --data: on other data sets, such as ImageNet-V2, in a table.

A file of weights, or a checkpoint, says which network it is of and how its images are prepared for evaluation. That
counts in place of the recipe's values; an option on the command line overrides it, and a line says so. In place of a
file the name of a model means the weights that are published of it, and their images.
"""

import dataclasses
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from model.names import is_model
from model.options import require_weights
from model.published import published
from model.start import Start, read_start
from model.weights import About
from shards.common.errors import ShardfeedError
from shards.common.terminal import counted, wrapped
from shards.dataset import Split
from train.checkpoints.start import as_wanted
from train.checkpoints.weights import describe_run, load_whole
from train.commands.eval_sets import class_columns, evaluation_splits
from train.commands.real import with_real_labels
from train.config import Config
from train.data import held_out_loader
from train.optim.gpu_memory import memory_advice
from train.options import Pixels
from train.options import Start as Begin
from train.ranks.distributed import World, joined, try_on_main
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
    real: bool = False
    """Whether ReaL's labels counted."""


def evaluate_files(config: Config, given: Collection[str] = ()) -> list[Reached]:
    """The accuracy of each file of `config.evaluate` on each data set of `config.eval_set`, or on the data's split.

    Each is evaluated with its own network and sizes of images.

    given: the fields of `config` that override what a file says, of model, blur_pool, interpolation, size, val_size,
    val_resize and flip_tta. Raises as `load_whole`, `read_start` and `published` do, and UsageError for weights of
    other classes.
    """
    require_weights(*(path for path in config.evaluate if not is_model(path)))
    splits = evaluation_splits(config)
    names = _names(config, splits)
    # Looked at before the first evaluation, which may take long.
    rights = [None if config.real_labels is None else with_real_labels(split, config.real_labels) for split in splits]
    said: set[str] = set()
    with joined(config.device, config.memory.offload) as world:
        # All files are read before the first evaluation, which may take long.
        plans = [
            dataclasses.replace(_plan(config, given, split, start, path, world, said), right=right)
            for path, start in ((path, _read(path, world)) for path in config.evaluate)
            for split, right in zip(splits, rights, strict=True)
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
    start: Start | None = None
    """The weights themselves, where no file has them."""
    right: tuple[Split, npt.NDArray[np.bool_]] | None = None
    """By ReaL's labels: see `with_real_labels`."""


def _evaluated(plan: _Plan, name: str, world: World) -> Reached:
    split, right = plan.split, None
    if plan.right is not None:
        split, right = plan.right[0], torch.from_numpy(plan.right[1])
    network, setup = set_up(plan.config, split, world, plan.classes)
    load_whole(network, _read(plan.path, world) if plan.start is None else plan.start)
    micro_batch = setup.batch.micro_batch
    with (
        memory_advice(plan.config, micro_batch, world.size),
        held_out_loader(split, setup, ids=right is not None) as batches,
    ):
        accuracy, _ = evaluate(network, batches, len(split), setup, split.short_title, plan.columns, right)
    classes = plan.classes if plan.columns is None else len(plan.columns)
    return Reached(plan.path, name, accuracy, classes, right is not None)


def _read(path: Path, world: World) -> Start:
    """The weights in a file or, read on the main rank alone, those that are published of a model."""
    if is_model(path):
        return try_on_main(lambda: published(str(path)), (ShardfeedError, OSError), world)
    return read_start(path)


def _plan(
    config: Config, given: Collection[str], held_out: Split, start: Start, path: Path, world: World, said: set[str]
) -> _Plan:
    """How the weights `start`, from `path`, are evaluated; on the main rank stderr says what they are of.

    `said`: the lines so far, none of which is said again.
    """
    about = start.about
    if about is not None and is_model(path):
        return _plan_published(config, given, held_out, start, about, path, world, said)
    own = config if about is None else merge(config, given, about)
    taken = describe_run(held_out, own)
    if about is None:
        line = f"{path} does not say what it is of, so the options do: {taken}"
    else:
        taken = dataclasses.replace(taken, class_names=about.class_names)
        ours, theirs = (dataclasses.asdict(each) for each in (taken, about))
        changed = [
            f"{name} {ours[name]} by the options and {theirs[name]} by the file"
            for name in ours
            if ours[name] != theirs[name]
        ]
        line = f"{path}: {taken}" + (f" ({'; '.join(changed)})" if changed else "")
    _say(line, world, said)
    if about is None:
        return _Plan(path, held_out, own, len(held_out.class_names), None)
    columns = class_columns(about.class_names, held_out.class_names, path, held_out.place, not world.is_main)
    return _Plan(path, held_out, own, len(about.class_names), columns)


def _say(line: str, world: World, said: set[str]) -> None:
    if world.is_main and line not in said:
        print(wrapped(line, sys.stderr), file=sys.stderr)
    said.add(line)


def _plan_published(
    config: Config,
    given: Collection[str],
    held_out: Split,
    start: Start,
    about: About,
    path: Path,
    world: World,
    said: set[str],
) -> _Plan:
    """As `_plan`, for weights that name no classes: their labels are taken to be those of the data set."""
    own = merge(config, given, about)
    resize = own.sizes.val_resize if "val_resize" in given else None
    sizes = dataclasses.replace(own.sizes, val_resize=resize)
    own = as_wanted(dataclasses.replace(own, model=about.model, blur_pool=False, sizes=sizes), about, held_out)
    taken = describe_run(held_out, own)
    _say(f"{start.title}: {taken}; its labels are taken to be those of the data set", world, said)
    return _Plan(path, held_out, own, len(held_out.class_names), None, start)


def merge(config: Config, given: Collection[str], about: About) -> Config:
    """`config` with what a file of weights says of itself, except for the fields that are `given`."""
    sizes, size = config.sizes, about.size
    if "val_size" in given and sizes.val_size is not None:
        size = sizes.val_size
    elif "size" in given:
        size = config.size
    pixels = Pixels(about.mean, about.std, config.pixels.interpolation if "interpolation" in given else "auto")
    # The file's own shorter side belongs to its own size; for another size it is in proportion.
    resize = about.resize if size == about.size else None
    return dataclasses.replace(
        config,
        model=config.model if "model" in given else about.model,
        blur_pool=config.blur_pool if "blur_pool" in given else about.blur_pool,
        start=Begin(),  # the weights to evaluate are all that is loaded
        pixels=pixels.resolved(about.interpolation),
        sizes=dataclasses.replace(
            sizes,
            val_size=size,
            val_resize=sizes.val_resize if "val_resize" in given else resize,
            flip_tta=sizes.flip_tta if "flip_tta" in given else about.flip_tta,
        ),
    )


def in_words(reached: Sequence[Reached]) -> str:
    """The figures for people: a line for one, a table for several."""
    real = ", ReaL labels" if reached[0].real else ""
    if len(reached) == 1:
        images = f" of {counted(reached[0].accuracy.images, 'image')}" if real else ""
        return f"{reached[0].name}{real}{images}: {figures(reached[0].accuracy, reached[0].classes)}"
    sets = len({each.name for each in reached}) > 1
    heads = [f"{each.weights} on {each.name}" if sets else str(each.weights) for each in reached]
    width = max(map(len, [*heads, f"weights{real}"]))
    few = not any(has_top5(each.classes) for each in reached)
    lines = [f"{f'weights{real}':<{width}}   top-1{'' if few else '   top-5'}     loss"]
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
