"""`python -m train --data DIR --evaluate FILE...`: the accuracy of saved weights on the held-out split.

A file of weights, or a checkpoint, says which network it is of and how its images are prepared for evaluation. That
counts in place of the recipe's values; an option on the command line overrides it, and a line says so. In place of a
file the name of a model means the weights that are published of it, and their images.
"""

import dataclasses
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

from model.names import TIMM
from model.networks import MODELS
from model.published import published
from model.start import Start, read_start
from model.weights import About, require_file
from shards.common.errors import ShardfeedError, UsageError
from shards.dataset import Split
from train.checkpoints.start import as_wanted
from train.checkpoints.weights import describe_run, load_whole
from train.config import Config
from train.data import held_out_loader, held_out_split
from train.optim.gpu_memory import memory_advice
from train.options import Pixels
from train.options import Start as Begin
from train.ranks.distributed import World, joined, try_on_main
from train.report.accuracy import Accuracy, evaluate, without
from train.run import set_up


def evaluate_files(config: Config, given: Collection[str] = ()) -> list[Accuracy]:
    """The accuracy of each file of `config.evaluate`, in that order, each with its own network and sizes of images.

    given: the fields of `config` that override what a file says, of model, blur_pool, size, val_size, val_resize and
    flip_tta. Raises as `load_whole`, `read_start` and `published` do.
    """
    for path in config.evaluate:
        if not is_model(path):
            require_file(path)
    held_out = held_out_split(config)
    assert held_out is not None, "Config refuses --evaluate with --val-split none"
    with joined(config.device, config.memory.offload) as world:
        # All files are read before the first evaluation, which may take long.
        planned = [_plan(config, given, held_out, path, world) for path in config.evaluate]
        reached = []
        for path, own in zip(config.evaluate, planned, strict=True):
            network, setup = set_up(own, held_out, world)
            load_whole(network, _read(path, world))
            micro_batch = setup.batch.micro_batch
            with memory_advice(own, micro_batch, world.size), held_out_loader(held_out, setup) as batches:
                reached.append(evaluate(network, batches, len(held_out), setup)[0])
    return reached


def is_model(path: Path) -> bool:
    """Whether the name of a model is meant, and no file."""
    return not path.exists() and (str(path) in MODELS or str(path).startswith(TIMM))


def _read(path: Path, world: World) -> Start:
    """The weights in a file or, read on the main rank alone, those that are published of a model."""
    if is_model(path):
        return try_on_main(lambda: published(str(path)), (ShardfeedError, OSError), world)
    return read_start(path)


def _plan(config: Config, given: Collection[str], held_out: Split, path: Path, world: World) -> Config:
    """The configuration by which the weights in `path` are evaluated; stderr says what it is, on the main rank."""
    start = _read(path, world)
    about = start.about
    if about is not None and is_model(path):
        return _plan_published(config, given, held_out, start, about, world)
    if about is not None and len(about.class_names) != len(held_out.class_names):
        raise UsageError(
            f"{path} is for {len(about.class_names)} classes, but the data set has {len(held_out.class_names)}"
        )
    own = config if about is None else merge(config, given, about)
    taken = describe_run(held_out, own)
    if about is None:
        line = f"{path} does not say what it is of, so the options do: {taken}"
    else:
        ours, theirs = (dataclasses.asdict(each) for each in (taken, about))
        changed = [
            f"{name} {ours[name]} by the options and {theirs[name]} by the file"
            for name in ours
            if name != "class_names" and ours[name] != theirs[name]
        ]
        line = f"{path}: {taken}" + (f" ({'; '.join(changed)})" if changed else "")
    if world.is_main:
        print(line, file=sys.stderr)
        if about is not None:
            _compare_names(about.class_names, held_out.class_names, path)
    return own


def _plan_published(
    config: Config, given: Collection[str], held_out: Split, start: Start, about: About, world: World
) -> Config:
    """As `_plan`, for weights that name no classes: their labels are taken to be those of the data set."""
    own = merge(config, given, about)
    resize = own.sizes.val_resize if "val_resize" in given else None
    sizes = dataclasses.replace(own.sizes, val_resize=resize)
    own = as_wanted(dataclasses.replace(own, model=about.model, blur_pool=False, sizes=sizes), about, held_out)
    if world.is_main:
        print(
            f"{start.title}: {describe_run(held_out, own)}; its labels are taken to be those of the data set",
            file=sys.stderr,
        )
    return own


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
        start=Begin(),  # the weights to evaluate are all that is loaded
        pixels=Pixels(about.mean, about.std, about.interpolation),
        sizes=dataclasses.replace(
            sizes,
            val_size=size,
            val_resize=sizes.val_resize if "val_resize" in given else resize,
            flip_tta=sizes.flip_tta if "flip_tta" in given else about.flip_tta,
        ),
    )


def _compare_names(trained: Sequence[str], here: Sequence[str], path: Path) -> None:
    """Warns if a label means another class than in training: the figures would be wrong and look right."""
    for label, (theirs, ours) in enumerate(zip(trained, here, strict=False)):
        if theirs != ours:
            print(
                f"{path} was trained on other classes: label {label} is {theirs!r} there and {ours!r} here",
                file=sys.stderr,
            )
            return


def table(paths: Sequence[Path], reached: Sequence[Accuracy]) -> str:
    """A line per file, the best top-1 marked, for people."""
    width = max(len(str(path)) for path in paths)
    best = max(each.top1 for each in reached)
    lines = [f"{'weights':<{width}}   top-1   top-5     loss"]
    for path, each in zip(paths, reached, strict=True):
        mark = "  best" if each.top1 == best else ""
        figures = f"{each.top1:5.2f}%  {each.top5:5.2f}%  {each.loss:7.4f}"
        lines.append(f"{path!s:<{width}}  {figures}{mark}{without(each)}")
    return "\n".join(lines)
