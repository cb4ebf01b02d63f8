"""Converts a source of images to shards.

python -m preprocess SOURCE OUT [--splits train validation] [--image-column image] [--label-column label]
    [--val-labels FILE] [--keep COLUMN ...]
    [--short-side 256 [--enlarge] | --original] [--quality 90 | --encoding raw] [--shard-size 1000] [--seed 0]
    [--workers N] [--order global | source] [--max-rejects 0.001] [--dry-run] [--force]

python -m preprocess SOURCE OUT ... --tasks i/n     makes slice i of n of the shards, one on each of n machines
python -m preprocess SOURCE OUT ... --finish        writes the manifest, once all slices are done
python -m preprocess SOURCE OUT --repair            makes damaged or missing files of a finished OUT again

In the end it prints what became of the images, and the commands that work now. A stop or a kill loses at most the
unfinished shards; the same command, started again, goes on.
"""

import sys
from pathlib import Path
from typing import Any

import shards

if "open_dataset" not in getattr(shards, "__all__", ()):
    print(f"{shards.__file__} hides this project's shards: start `shardfeed preprocess` instead", file=sys.stderr)
    sys.exit(2)

from shards.common.signals import end_on_signals

if __name__ == "__main__":
    end_on_signals("python -m preprocess")  # while the modules below load

from preprocess.options import Options
from shards.common import cli
from shards.format.layout import MANIFEST
from shards.format.manifest import Manifest
from shards.remote.urls import is_url


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    return cli.run("python -m preprocess", Options, _run, argv)


def _run(options: Options) -> None:
    # The image libraries take seconds to import, which --help should not wait for.
    with cli.loading("the image libraries", "preprocess.run"):
        from preprocess.run import preprocess

    expected = preprocess(options)
    made = _splits(Path(options.out)) if not is_url(options.out) else {}
    cli.show_result({"out": options.out, **({"estimate": expected.figures()} if expected else made)})


def _splits(out: Path) -> dict[str, Any]:
    """What a finished data set holds; nothing after a slice or a dry run."""
    if not (out / MANIFEST).exists():
        return {}
    splits = Manifest.read(out).splits
    return {"splits": {name: {"samples": each.samples, "rejects": each.rejects} for name, each in splits.items()}}


if __name__ == "__main__":
    sys.exit(main())
