"""python -m benchmarks loaders --data DIR --source SOURCE    this project's loader against the naive PIL path
python -m benchmarks preprocess --source SOURCE            converting images to shards, against a PIL worker
python -m benchmarks demo                                  the whole project once, on synthetic images
"""

import sys

from benchmarks import demo, loaders, preprocess
from shards.cli import Command, run_commands

COMMANDS = {
    "demo": Command(demo.Options, demo.run, "the whole project once, on a small synthetic data set"),
    "loaders": Command(loaders.Options, loaders.run, "the loader against the naive PIL path, in images/s"),
    "preprocess": Command(preprocess.Options, preprocess.run, "converting images to shards, in images/s and core"),
}


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    return run_commands("python -m benchmarks", COMMANDS, argv)


if __name__ == "__main__":
    sys.exit(main())
