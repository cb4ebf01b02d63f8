"""Images from anywhere to shards.

python -m preprocess SOURCE OUT [--splits train validation] [--image-column image] [--label-column label]
    [--short-side 256 | --original] [--quality 90] [--shard-size 1000] [--seed 0] [--workers N]
    [--max-rejects 0.001]

Prints what became of the images when it is done. Ctrl-C and kills lose at most the unfinished shards.
"""

import sys

from preprocess.options import Options
from shards import cli


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    return cli.run("python -m preprocess", Options, _run, argv)


def _run(options: Options) -> None:
    # The image libraries take seconds to import, which --help should not wait for.
    from preprocess.run import preprocess

    preprocess(options)


if __name__ == "__main__":
    sys.exit(main())
