"""`python -m train --data DIR --evaluate FILE...`: the accuracy of saved weights on the held-out split."""

import sys
from collections.abc import Sequence
from pathlib import Path

from model.weights import require_file
from train.checkpoints.weights import load_weights
from train.config import Config
from train.data import held_out_loader, held_out_split
from train.optim.gpu_memory import memory_advice
from train.ranks.distributed import joined
from train.report.accuracy import Accuracy, evaluate, without
from train.run import set_up


def evaluate_files(config: Config) -> list[Accuracy]:
    """The accuracy of each file of `config.evaluate`, in that order. Raises as `load_weights` does."""
    for path in config.evaluate:
        require_file(path)  # before evaluating the first one, which may take long
    held_out = held_out_split(config)
    assert held_out is not None, "Config refuses --evaluate with --val-split none"
    with joined(config.device) as world:
        network, setup = set_up(config, len(held_out.class_names), world)
        micro_batch = setup.batch.micro_batch
        with memory_advice(config, micro_batch, world.size), held_out_loader(held_out, setup) as batches:
            reached = []
            for number, path in enumerate(config.evaluate):
                about = load_weights(network, path)
                if world.is_main and about is not None:
                    _compare_names(about.class_names, held_out.class_names, path)
                batches.set_epoch(number)
                reached.append(evaluate(network, batches, len(held_out), setup)[0])
    return reached


def _compare_names(trained: Sequence[str], here: Sequence[str], path: Path) -> None:
    """Warns if a label means another class than in training: the figures would be wrong and look right."""
    for label, (theirs, ours) in enumerate(zip(trained, here, strict=True)):
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
