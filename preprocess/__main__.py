"""Images from anywhere to shards.

python -m preprocess SOURCE OUT [--splits train validation] [--image-column image] [--label-column label]
    [--short-side 256 | --original] [--quality 90 | --encoding raw] [--shard-size 1000] [--seed 0] [--workers N]
    [--order global | source] [--max-rejects 0.001] [--dry-run] [--force]

python -m preprocess SOURCE OUT ... --tasks i/n     slice i of n of the shards, one on each of n machines
python -m preprocess SOURCE OUT ... --finish        then, once: the manifest
python -m preprocess SOURCE OUT --repair            damaged or missing files of a finished OUT, made again

Prints what became of the images when it is done. Ctrl-C and kills lose at most the unfinished shards; starting again
goes on.
"""

import sys

from preprocess.options import Options
from shards.common import cli


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    return cli.run("python -m preprocess", Options, _run, argv)


def _run(options: Options) -> None:
    # The image libraries take seconds to import, which --help should not wait for.
    from preprocess.run import preprocess

    preprocess(options)


if __name__ == "__main__":
    sys.exit(main())
