"""Trains, checks or evaluates a network.

    python -m train --data DIR [--recipe cnn] [--epochs 5 ...]      train; results go to Results/
    torchrun --standalone --nproc-per-node 8 -m train --data DIR    the same, one process per GPU
    python -m train --data DIR --check                              is everything ready? A few seconds
    python -m train --data DIR --evaluate Results/imagenet_trained_model.pth [MORE.pth ...]     with a table
    python -m train --evaluate FILE.pth --eval-set DIR [MORE ...]   on other data sets, such as ImageNet-V2
    python -m train --data DIR --recipe rn18_16 --find-lr           a range test of the learning rate

The same command again goes on with a run that was cut short (--resume). Ctrl-C, SIGTERM, SIGHUP and SIGUSR1 save the
run between two steps and end it, with exit status 130, 143, 129 and 138.

Training and evaluation print a line for people and, with --json or without a terminal, one of JSON for programs.
"""

import contextlib
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

import shards

if "open_dataset" not in getattr(shards, "__all__", ()):
    print(f"{shards.__file__} hides this project's shards: start `shardfeed train` instead", file=sys.stderr)
    sys.exit(2)

from shards.common.signals import end_on_signals

if __name__ == "__main__":
    end_on_signals("python -m train")  # while the modules below load

import tyro

from shards.common.cli import guarded, loading, parse, show_result
from shards.common.errors import ShardfeedError, UsageError
from shards.common.terminal import duration, wrapped
from train.config import NO_DATA, Config
from train.options import require_optimizer
from train.ranks.error_file import write_error_file
from train.recipes import find_recipe

PROG = "python -m train"
HOLD_S = 20.0
# What takes seconds to load, and the module that is loaded last.
LIBRARIES = ("torch and DALI", "shards.loader")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status."""
    return guarded(PROG, _run_on_a_rank, argv)


def parse_config(words: Sequence[str]) -> Config:
    """The recipe that the words name, with the values of the other words in place of its own."""
    recipe = find_recipe(words)
    elsewhere = any(word.partition("=")[0] in ("--eval-set", "--eval_set") for word in words)
    return parse(Config, words, PROG, default=recipe(NO_DATA if elsewhere else tyro.MISSING))


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
        write_error_file(PROG, error)
        raise


def given(words: Sequence[str]) -> set[str]:
    """The fields of a Config that the words set: "size" of --size 64, "flip_tta" of --no-flip-tta."""
    names = (word.partition("=")[0].removeprefix("--").removeprefix("no-") for word in words if word.startswith("--"))
    return {name.replace("-", "_") for name in names}


def _run(words: list[str]) -> None:
    config = parse_config(words)
    # Imported only now, so that --help and a mistyped option need not wait for the libraries of each.
    from train.commands.before import refuse
    from train.commands.unused import refuse_unused
    from train.report.result import complete_line

    refuse_unused(config, given(words))
    complete = refuse(config, given(words))
    if not config.evaluate and complete is None:
        require_optimizer(config.update.optimizer)
    # By default PyTorch's CPU threads spin while they wait for each other, on cores that the loader's threads need:
    # that made training 3 times slower on a busy machine of two cores. The variable is read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if config.check:
        with loading(*LIBRARIES):
            from train.commands.check import check

            with contextlib.suppress(ImportError):  # which the check itself reports
                load_dali()
        check(config)
        if is_main():
            show_result({"check": "passed"})
    elif config.evaluate:
        with loading(*LIBRARIES):
            from train.commands.evaluate import as_json, evaluate_files, in_words

            load_dali()
        reached = evaluate_files(config, given(words))
        _print(in_words(reached), as_json(reached))
    elif config.find_lr:
        _begin(config, f"a range test of the learning rate, which trains nothing to keep and writes to {config.out}")
        with loading(*LIBRARIES):
            from train.commands.find_lr import find_lr

            load_dali()
        found = find_lr(config)
        _print(f"suggestion after {found.steps} steps: --max-lr {found.max_lr:.2g}; see {found.picture}", found)
    elif complete is not None:
        _print(complete_line(config.out, complete), complete)
    else:
        _begin(config, f"results go to {config.out}")
        with loading(*LIBRARIES):
            from train.engine import train

            load_dali()
        result = train(config)
        took = f"trained for {duration(result.train_seconds)} at {result.images_per_s:,.0f} images/s"
        _print(f"{took}; the weights are in {result.weights}", result)


def _begin(config: Config, what: str) -> None:
    """The first line of the header; the rest follows once the libraries are loaded: train/report/header.py."""
    if is_main():
        print(wrapped(f"{config.model} (recipe {config.recipe}) on {config.data}; {what}"), flush=True)


def load_dali() -> None:
    """Loads DALI, which `shards` does only when a loader is first made."""
    _ = shards.Loader


def _print(line: str, result: Any) -> None:
    """Prints text for people, and the result for programs, on the main rank."""
    if is_main():
        print(line if "\n" in line else wrapped(line))  # a table stays one
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
