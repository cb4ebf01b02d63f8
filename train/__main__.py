"""Trains, checks or evaluates a network.

    python -m train --data DIR [--recipe cnn] [--epochs 5 ...]      train; results go to Results/
    torchrun --standalone --nproc-per-node 8 -m train --data DIR    the same, one process per GPU
    python -m train --data DIR --check                              is everything ready? A few seconds
    python -m train --data DIR --evaluate Results/imagenet_trained_model.pth [MORE.pth ...]     with a table
    python -m train --data DIR --recipe rn18_16 --find-lr           a range test of the learning rate

The same command again goes on with a run that was cut short (--resume). Ctrl-C, SIGTERM, SIGHUP and SIGUSR1 save the
run between two steps and end it, with exit status 130, 143, 129 and 138.

Training and evaluation print a line for people and, with --json or without a terminal, one of JSON for programs.
"""

import os
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import tyro

import shards

if not hasattr(shards, "open_dataset"):
    print(f"{shards.__file__} hides this project's shards: start `shardfeed train` instead", file=sys.stderr)
    sys.exit(2)

from shards.common.cli import guarded, parse, show_result
from shards.common.errors import ShardfeedError, UsageError
from train.config import Config
from train.recipes import find_recipe

if TYPE_CHECKING:
    from train.engine import Result
    from train.report.accuracy import Accuracy

PROG = "python -m train"
HOLD_S = 20.0


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status."""
    return guarded(PROG, _run_on_a_rank, argv)


def parse_config(words: Sequence[str]) -> Config:
    """The recipe that the words name, with the values of the other words in place of its own."""
    recipe = find_recipe(words)
    return parse(Config, words, PROG, default=recipe(tyro.MISSING))


def _run_on_a_rank(words: list[str]) -> None:
    """Runs the command; a mistake that all ranks of a machine see is left to the first of them to print.

    Another rank waits before it prints: meanwhile the first one has ended, and torchrun ends this one. If the first
    sees nothing wrong, the line comes HOLD_S late.
    """
    try:
        _run(words)
    except ShardfeedError as error:
        on_every_rank = isinstance(error, UsageError) or getattr(error, "on_every_rank", False)
        if on_every_rank and os.environ.get("LOCAL_RANK", "0") != "0":
            time.sleep(HOLD_S)
        raise


def given(words: Sequence[str]) -> set[str]:
    """The fields of a Config that the words set: "size" of --size 64, "flip_tta" of --no-flip-tta."""
    names = (word.partition("=")[0].removeprefix("--").removeprefix("no-") for word in words if word.startswith("--"))
    return {name.replace("-", "_") for name in names}


def _run(words: list[str]) -> None:
    config = parse_config(words)
    from shards.dataset import open_dataset
    from shards.remote.urls import is_url

    if not is_url(config.data):
        open_dataset(config.data)  # a mistyped path need not wait for torch
    # By default PyTorch's CPU threads spin while they wait for each other, on cores that the loader's threads need:
    # that made training 3 times slower on a busy machine of two cores. The variable is read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Imported only now, so that --help and a mistyped option need not wait for torch and DALI.
    if config.check:
        from train.commands.check import check

        check(config)
        if is_main():
            show_result({"check": "passed"})
    elif config.evaluate:
        from train.commands.evaluate import evaluate_files, table

        reached = evaluate_files(config, given(words))
        if len(reached) > 1:
            _print(table(config.evaluate, reached), dict(zip(map(str, config.evaluate), reached, strict=True)))
        else:
            _print(_line(reached[0]), reached[0])
    elif config.find_lr:
        from train.commands.find_lr import find_lr

        found = find_lr(config)
        _print(f"suggestion after {found.steps} steps: --max-lr {found.max_lr:.2g}; see {found.picture}", found)
    else:
        # Before torch and DALI are loaded, which takes seconds; the rest of the header follows: train/report/header.py.
        if is_main():
            print(f"{config.model} (recipe {config.recipe}) on {config.data}; results go to {config.out}", flush=True)
        from train.engine import train

        result = train(config)
        _print(f"{_line(result)}, {result.images_per_s:,.0f} images/s; the weights are in {result.weights}", result)


def _line(reached: "Accuracy | Result") -> str:
    from train.report.accuracy import Accuracy, without

    if reached.top1 is None:
        return "not validated (--val-split none)"
    left_out = without(reached) if isinstance(reached, Accuracy) else ""
    return f"validation: top-1 {reached.top1:.2f}%, top-5 {reached.top5:.2f}%, loss {reached.loss:.4f}{left_out}"


def _print(line: str, result: Any) -> None:
    """Prints text for people, and the result for programs, on the main rank."""
    if is_main():
        print(line)
        show_result(result)


def exit_status(argv: Sequence[str] | None = None) -> int:
    """`main`, which a signal leaves by SystemExit: here that is its status too."""
    try:
        return main(argv)
    except SystemExit as stopped:
        return stopped.code if isinstance(stopped.code, int) else 0


def is_main() -> bool:
    """Whether this is the process that prints, by torchrun's variables: torch need not be loaded."""
    return os.environ.get("RANK", "0") == "0"


def leave(status: int) -> None:
    """Ends the process: at once after a signal, and if a rank has failed.

    A regular exit takes Python seconds to free torch and DALI on a busy machine, and schedulers kill after a few. And
    it waits for NCCL, which waits for the other ranks, which wait for this one; torchrun ends them only when this one
    is gone.
    """
    distributed = sys.modules.get("torch.distributed")
    if status > 128 or (status and distributed is not None and distributed.is_initialized()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


if __name__ == "__main__":
    leave(exit_status())
