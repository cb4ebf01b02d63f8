"""Trains, checks or evaluates.

    python -m train --data DIR [--recipe cnn] [--epochs 5 ...]      train; the results are in Results/
    torchrun --standalone --nproc-per-node 8 -m train --data DIR    the same, one process per GPU
    python -m train --data DIR --check                              is everything ready? A few seconds
    python -m train --data DIR --evaluate Results/imagenet_trained_model.pth

The same command again goes on with a run that was cut short (--resume). SIGTERM and SIGUSR1 save the run between two
steps and end it, with exit status 143 and 138.

Training and evaluation print a line for people, then one JSON line for programs.
"""

import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import tyro

from shards.cli import guarded, parse
from train.config import Config
from train.recipes import find_recipe

if TYPE_CHECKING:
    from train.engine import Result
    from train.evaluation import Accuracy

PROG = "python -m train"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status."""
    return guarded(PROG, _run, argv)


def parse_config(words: Sequence[str]) -> Config:
    """The recipe named among the words, with the other words' values in place of its own."""
    recipe = find_recipe(words)
    return parse(Config, words, PROG, default=recipe(tyro.MISSING))


def _run(words: list[str]) -> None:
    config = parse_config(words)
    # By default PyTorch's CPU threads spin while they wait for each other, on the cores that the loader's threads
    # need: with both cores of a small machine busy, training ran 3 times slower so. It is read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Imported only now: they load torch and DALI, which --help and a mistyped option need not wait for.
    if config.check:
        from train.check import check

        check(config)
    elif config.evaluate is not None:
        from train.engine import evaluate_file

        _print(evaluate_file(config, config.evaluate))
    else:
        from train.engine import train

        result = train(config)
        _print(result, f", {result.images_per_s:,.0f} images/s; the weights are in {result.weights}")


def _print(reached: "Accuracy | Result", more: str = "") -> None:
    """A line for people and one for programs, on the main rank."""
    if os.environ.get("RANK", "0") == "0":
        print(f"top-1 {reached.top1:.2f}%, top-5 {reached.top5:.2f}%, loss {reached.loss:.4f}{more}")
        print(json.dumps(dataclasses.asdict(reached), default=str))


if __name__ == "__main__":
    sys.exit(main())
