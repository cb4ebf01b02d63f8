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
    return run_commands("python -m benchmarks", COMMANDS, argv)


if __name__ == "__main__":
    sys.exit(main())
