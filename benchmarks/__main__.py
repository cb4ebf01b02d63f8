"""python -m benchmarks loaders --data DIR --source SOURCE    this project's loader against the naive PIL path
python -m benchmarks peers --source SOURCE                 every loader that can be measured here, in one table
python -m benchmarks peers-install                         environments for the other systems' loaders
python -m benchmarks preprocess --source SOURCE            converting images to shards, against a PIL worker
python -m benchmarks shuffle                               how well each order mixes neighbours on disk
python -m benchmarks train --data DIR --recipe R           does training wait for its data?
python -m benchmarks accuracy --data DIR --source SOURCE   does this loader train as well as the usual one?
python -m benchmarks stages --data DIR                     the loader stage by stage, against the machine's limits
python -m benchmarks scale --data DIR                      start-up, memory and speed over rows, epochs and threads
python -m benchmarks verdict --data DIR --recipe R         what holds a run back, and what to change
python -m benchmarks report RESULTS... --output FILE       results as one page with tables and charts
python -m benchmarks readme RESULTS...                     results of loaders as the documents' tables and picture
python -m benchmarks gpu                                   all that waits for a GPU, unattended, in ten minutes
python -m benchmarks demo                                  the whole project once, on synthetic images

Each command is a module of benchmarks/commands/, with its options and `run`, imported when it is chosen.
"""

import sys

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
