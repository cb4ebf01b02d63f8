"""Trains, checks or evaluates a network.

    python -m train --data DIR [--recipe cnn] [--epochs 5 ...]      train; results go to Results/
    torchrun --standalone --nproc-per-node 8 -m train --data DIR    the same, one process per GPU
    python -m train --data DIR --check                              is everything ready? A few seconds
    python -m train --data DIR --evaluate Results/imagenet_trained_model.pth [MORE.pth ...]     with a table
    python -m train --data DIR --recipe rn18_16 --find-lr           a range test of the learning rate

The same command again goes on with a run that was cut short (--resume). Ctrl-C, SIGTERM, SIGHUP and SIGUSR1 save the
run between two steps and end it, with exit status 130, 143, 129 and 138.

Training and evaluation print a line for people, then one JSON line for programs.
"""

import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import tyro

from shards.common.cli import guarded, parse
from train.config import Config
from train.recipes import find_recipe

if TYPE_CHECKING:
    from train.engine import Result
    from train.report.accuracy import Accuracy

PROG = "python -m train"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status."""
    return guarded(PROG, _run, argv)


def parse_config(words: Sequence[str]) -> Config:
    """The recipe that the words name, with the values of the other words in place of its own."""
    recipe = find_recipe(words)
    return parse(Config, words, PROG, default=recipe(tyro.MISSING))


def _run(words: list[str]) -> None:
    config = parse_config(words)
    # By default PyTorch's CPU threads spin while they wait for each other, on cores that the loader's threads need:
    # that made training 3 times slower on a busy machine of two cores. The variable is read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Imported only now, so that --help and a mistyped option need not wait for torch and DALI.
    if config.check:
        from train.commands.check import check

        check(config)
    elif config.evaluate:
        from train.commands.evaluate import evaluate_files, table

        reached = evaluate_files(config)
        if len(reached) > 1:
            _print(table(config.evaluate, reached), dict(zip(map(str, config.evaluate), reached, strict=True)))
        else:
            _print(_line(reached[0]), reached[0])
    elif config.find_lr:
        from train.commands.find_lr import find_lr

        found = find_lr(config)
        _print(f"suggestion after {found.steps} steps: --max-lr {found.max_lr:.2g}; see {found.picture}", found)
    else:
        from train.engine import train

        result = train(config)
        _print(f"{_line(result)}, {result.images_per_s:,.0f} images/s; the weights are in {result.weights}", result)


def _line(reached: "Accuracy | Result") -> str:
    from train.report.accuracy import Accuracy, without

    if reached.top1 is None:
        return "not validated (--val-split none)"
    left_out = without(reached) if isinstance(reached, Accuracy) else ""
    return f"top-1 {reached.top1:.2f}%, top-5 {reached.top5:.2f}%, loss {reached.loss:.4f}{left_out}"


def _print(line: str, result: Any) -> None:
    """Prints text for people and a last line of JSON for programs, on the main rank."""
    if os.environ.get("RANK", "0") == "0":
        print(line)
        plain = result if isinstance(result, dict) else {"": result}
        values = {name: dataclasses.asdict(each) for name, each in plain.items()}
        print(json.dumps(values.get("", values), default=str))


def leave(status: int) -> None:
    """Ends the process; a rank that failed ends at once, because a regular exit from Python waits for NCCL.

    NCCL waits for the other ranks, which wait for this one, and torchrun ends them only when this one is gone.
    """
    distributed = sys.modules.get("torch.distributed")
    if status and distributed is not None and distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


if __name__ == "__main__":
    leave(main())
