"""The command `shardfeed`: `shardfeed train ...` does what `python -m train ...` does, from any directory.

`python -m train` looks for modules in the working directory first, so a `train.py` or a folder `shards/` of the user's
own would be taken for this project. The command does not look there, and neither do the processes that it starts.
"""

import os
import runpy
import sys

from shards.common import terminal
from shards.common.signals import end_on_signals

PROG = "shardfeed"
# Only named here, never imported: this package knows none of those above it.
PROGRAMS = {
    "preprocess": "converts a data set of images into shards",
    "shards": "says what is in a data set, verifies it, draws a batch of it, indexes tars of others",
    "train": "trains, checks, evaluates",
    "model": "classifies images with trained weights, exports them",
    "benchmarks": "measures the loader, the conversion and training",
}


def main() -> int:
    """The entry point of the installed command: returns the exit status, or ends as the program itself does."""
    words = sys.argv[1:]
    if not words or words[0] not in PROGRAMS:
        from shards.common.cli import guarded

        return guarded(PROG, _list_programs, words)
    end_on_signals(f"{PROG} {words[0]}")
    # Python reads this when it starts, so it holds for worker processes and for `sys.executable -m ...`.
    os.environ["PYTHONSAFEPATH"] = "1"
    terminal.started_as = PROG
    sys.argv = words
    runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    return 0


def _list_programs(words: list[str]) -> None:
    from shards.common.cli import chosen

    chosen(PROG, PROGRAMS, words)
