"""Writes a small data set of synthetic images, as a directory of parquet in the hub's layout.

python -m preprocess.synthetic OUT [--train 2000] [--validation 500] [--classes 10] [--seed 0] [--workers N]
"""

import sys

from preprocess.synthetic.write import Options, write
from shards.common import cli


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    return cli.run("python -m preprocess.synthetic", Options, write, argv)


if __name__ == "__main__":
    sys.exit(main())
