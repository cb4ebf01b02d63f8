"""What of a finished data set is missing or cut off, by the lengths of its files alone; and what mends it, in words."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from shards.common.terminal import counted
from shards.format.layout import INDEX, REJECTS, dali_index_name
from shards.format.manifest import Manifest

SHOWN = 3  # files in a message


def wrong_files(manifest: Manifest, sizes: Callable[[str], Mapping[str, int]]) -> list[str]:
    """The files of a data set that are missing or not as long as its manifest says, relative to it.

    sizes: the length of each file in the directory of a split, by its name. Not for an index of tars of others.
    """
    wrong = []
    for split, info in manifest.splits.items():
        lengths: dict[str, int | None] = {INDEX: info.index.bytes if info.index else None}
        if info.rejects:
            lengths[REJECTS] = None  # the manifest does not say how long it is
        for shard in info.shards:
            lengths |= {shard.name: shard.bytes, dali_index_name(shard.name): None}
        there = sizes(split)
        wrong += [
            f"{split}/{name}"
            for name, length in lengths.items()
            if name not in there or length not in (None, there[name])
        ]
    return wrong


def directory_sizes(root: Path, name: str) -> dict[str, int]:
    """The length of each file in a directory of a data set, by its name; none where there is no directory."""
    if not (root / name).is_dir():
        return {}
    return {path.name: path.stat().st_size for path in (root / name).iterdir() if path.is_file()}


def files_in_words(names: Sequence[str]) -> str:
    """How many different files these are, and the first of them."""
    each = list(dict.fromkeys(names))
    return f"{counted(len(each), 'file')} ({', '.join(each[:SHOWN])}{', ...' if len(each) > SHOWN else ''})"


def how_to_mend(place: str | Path, source: str = "SOURCE") -> str:
    """What makes damaged files of the data set in `place`, a directory or a URL, again from their `source`."""
    remote = "://" in str(place)
    repair = f"`python -m preprocess {shlex.quote(source)} {'COPY' if remote else shlex.quote(str(place))} --repair`"
    if remote:
        return f"{repair} mends a copy of it on a disk, which can be uploaded again"
    return f"{repair} makes damaged files again from their source"
