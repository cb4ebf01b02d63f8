"""`python -m train --data DIR --evaluate FILE...`: the accuracy of saved weights on the held-out split."""

import sys
from collections.abc import Sequence
from pathlib import Path

from model.weights import require_file
from shards.dataset import choose_split
from train.checkpoints.weights import load_weights
from train.config import Config
from train.data import HELD_OUT, held_out_loader
from train.evaluation import Accuracy, evaluate
from train.optim.gpu_memory import choose_micro_batch, memory_advice
from train.optim.optimizer import choose_dtype, round_products
from train.ranks.distributed import joined
from train.run import make_network


def evaluate_files(config: Config) -> list[Accuracy]:
    """The accuracy of each file of `config.evaluate`, in that order. Raises as `load_weights` does."""
    for path in config.evaluate:
        require_file(path)  # before the first is evaluated, which may take long
    held_out = choose_split(config.data, HELD_OUT, config.feeding.cache)
    with joined(config.device) as world:
        dtype = choose_dtype(config, world.device)
        round_products(config)
        network = make_network(config, len(held_out.class_names), world)
        config = choose_micro_batch(network, config, world, dtype)
        with memory_advice(config, world), held_out_loader(held_out, config, world, dtype) as batches:
            reached = []
            for number, path in enumerate(config.evaluate):
                about = load_weights(network, path)
                if world.is_main and about is not None:
                    _compare_names(about.class_names, held_out.class_names, path)
                batches.set_epoch(number)
                reached.append(evaluate(network, batches, len(held_out), config, world, dtype)[0])
    return reached


def _compare_names(trained: Sequence[str], here: Sequence[str], path: Path) -> None:
    """Warns where labels mean other classes than in training: the figures would be wrong without looking so."""
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
        lines.append(f"{path!s:<{width}}  {each.top1:5.2f}%  {each.top5:5.2f}%  {each.loss:7.4f}{mark}")
    return "\n".join(lines)
