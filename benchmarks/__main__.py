"""python -m benchmarks COMMAND: measuring this project, and the demo. `python -m benchmarks --help` lists the commands.

Each command is a module of benchmarks/commands/ with `Options` and `run`, imported when the command is chosen.
"""

import sys

import shards

if "open_dataset" not in getattr(shards, "__all__", ()):
    print(f"{shards.__file__} hides this project's shards: start `shardfeed benchmarks` instead", file=sys.stderr)
    sys.exit(2)

from shards.common.signals import end_on_signals

if __name__ == "__main__":
    end_on_signals("python -m benchmarks")  # while the modules below load

from shards.common.cli import LazyCommand, run_commands
from shards.common.signals import StoppedBySignal, stopped_by_signals
from shards.common.terminal import as_started

COMMANDS = {
    name: LazyCommand(f"benchmarks.commands.{name.replace('-', '_')}", help)
    for name, help in {
        "accuracy": "training with this loader and with the usual one, in top-1",
        "demo": "the whole project once, on a small synthetic data set",
        "gpu": "all that waits for a GPU, unattended: tests, loaders, stages, training",
        "loaders": "the loader against the naive PIL path, in images/s",
        "peers": "every loader that can be measured here, over every row of one table",
        "peers-install": "environments for the other systems' loaders",
        "preprocess": "converting images to shards, in images/s and core",
        "readme": "results of loaders as the documents' tables and picture",
        "report": "results as one page with tables and charts",
        "scale": "start-up, memory and speed over rows, epochs and threads",
        "shuffle": "how well each order mixes",
        "stages": "the loader stage by stage, against the machine's limits",
        "train": "training on real, cached and synthetic batches",
        "verdict": "what holds a training run back, and what to change",
    }.items()
}


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    try:
        with stopped_by_signals():  # so that what a command has started ends with it
            return run_commands("python -m benchmarks", COMMANDS, argv)
    except StoppedBySignal as stopped:
        print(f"{as_started('python -m benchmarks')}: stopped by {stopped.name}", file=sys.stderr)
        raise


if __name__ == "__main__":
    sys.exit(main())
