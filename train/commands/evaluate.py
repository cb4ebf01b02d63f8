"""`python -m train --data DIR --evaluate FILE...`: the accuracy of saved weights on the held-out split.

A file of weights, or a checkpoint, says which network it is of and how its images are prepared for evaluation. That
counts in place of the recipe's values; an option on the command line overrides it, and a line says so.
"""

import dataclasses
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

from model.weights import About, about_of, read_saved, require_file
from shards.common.errors import UsageError
from shards.dataset import Split
from shards.format.layout import class_id
from train.checkpoints.weights import describe_run, load_weights
from train.config import Config
from train.data import held_out_loader, held_out_split
from train.optim.gpu_memory import memory_advice
from train.ranks.distributed import joined
from train.report.accuracy import Accuracy, evaluate, without
from train.run import set_up


def evaluate_files(config: Config, given: Collection[str] = ()) -> list[Accuracy]:
    """The accuracy of each file of `config.evaluate`, in that order, each with its own network and sizes of images.

    given: the fields of `config` that override what a file says, of model, blur_pool, size, val_size, val_resize and
    flip_tta. Raises as `load_weights` does, and UsageError for weights of images that were normalised in another way.
    """
    for path in config.evaluate:
        require_file(path)
    held_out = held_out_split(config)
    assert held_out is not None, "Config refuses --evaluate with --val-split none"
    with joined(config.device, config.memory.offload) as world:
        # All files are read before the first evaluation, which may take long.
        planned = [_plan(config, given, held_out, path, quiet=not world.is_main) for path in config.evaluate]
        reached = []
        for path, own in zip(config.evaluate, planned, strict=True):
            network, setup = set_up(own, len(held_out.class_names), world)
            load_weights(network, path)
            micro_batch = setup.batch.micro_batch
            with memory_advice(own, micro_batch, world.size), held_out_loader(held_out, setup) as batches:
                reached.append(evaluate(network, batches, len(held_out), setup)[0])
    return reached


def _plan(config: Config, given: Collection[str], held_out: Split, path: Path, quiet: bool) -> Config:
    """The configuration by which the weights in `path` are evaluated; unless `quiet`, stderr says what it is."""
    about = about_of(read_saved(path))
    if about is not None and len(about.class_names) != len(held_out.class_names):
        raise UsageError(
            f"{path} is for {len(about.class_names)} classes, but the data set has {len(held_out.class_names)}"
        )
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
        ours, theirs = (dataclasses.asdict(each) for each in (taken, about))
        changed = [
            f"{name} {ours[name]} by the options and {theirs[name]} by the file"
            for name in ours
            if name != "class_names" and ours[name] != theirs[name]
        ]
        line = f"{path}: {taken}" + (f" ({'; '.join(changed)})" if changed else "")
    if not quiet:
        print(line, file=sys.stderr)
        if about is not None:
            _compare_names(about.class_names, held_out.class_names, path)
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
        # One of the two may have been made without the list of names.
        if class_id(theirs) != class_id(ours):
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
