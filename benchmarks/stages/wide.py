"""Data sets with an index of any length over a few real shards: many rows point at the same images.

Each shard is a symbolic link to one of the few, with that one's rows, so opening the data set, its index and its order
cost what a real data set of that size costs, without its images.
"""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np

from shards.common.errors import ShardfeedError
from shards.dataset import Split, open_dataset
from shards.format.index import Index
from shards.format.layout import INDEX, sample_key, shard_name, split_dir
from shards.format.manifest import ShardInfo, SplitInfo

# Made-up images, where no data set is given: enough that decoding does not repeat itself in a processor's caches.
MADE_UP = 512


def widen(split: Split, rows: int, root: Path) -> Split:
    """Writes a data set in `root` whose only split has `rows` rows that point at the shards of `split`."""
    starts = np.searchsorted(split.index.shard, np.arange(len(split.info.shards) + 1))
    directory = split_dir(root, split.name)
    directory.mkdir(parents=True)
    infos: list[ShardInfo] = []
    parts: list[Index] = []
    left = rows
    while left > 0:
        number = len(infos)
        of = number % len(split.info.shards)
        name, info = shard_name(split.name, number), split.info.shards[of]
        (directory / name).symlink_to(split.shard_paths[of].resolve())
        part = split.index.rows(slice(int(starts[of]), int(starts[of]) + min(left, info.samples)))
        parts.append(dataclasses.replace(part, shard=np.full(len(part), number, np.int32)))
        infos.append(dataclasses.replace(info, name=name, samples=len(part)))
        left -= len(part)
    keys = np.array([sample_key(row) for row in range(rows)], dtype=object)
    dataclasses.replace(Index.concatenate(parts), key=keys).write(directory / INDEX)
    splits = {split.name: SplitInfo(rows, 0, tuple(infos))}
    dataclasses.replace(split.manifest, splits=splits).write(root)
    return open_dataset(root)[split.name]


def make_up(root: Path) -> Split:
    """Makes a data set of MADE_UP drawn images in `root`, as `python -m preprocess` does. Raises ShardfeedError."""
    words = [f"synthetic:train={MADE_UP},validation=1", str(root), "--shard-size", str(MADE_UP // 4)]
    done = subprocess.run([sys.executable, "-m", "preprocess", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ShardfeedError(f"no images could be made up: {done.stderr.strip()}")
    return open_dataset(root)["train"]
