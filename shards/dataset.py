"""A finished data set, opened for reading: its manifest and, when first asked for, each split's index."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shards.errors import ShardfeedError, UsageError
from shards.index import Index
from shards.layout import INDEX, split_dir
from shards.manifest import Manifest, SplitInfo


@dataclass(frozen=True)
class Split:
    """One split of a data set. A sample's id is its row in `index`."""

    root: Path
    name: str
    manifest: Manifest

    def __len__(self) -> int:
        return self.info.samples

    @property
    def info(self) -> SplitInfo:
        """What the manifest says of this split."""
        return self.manifest.splits[self.name]

    @property
    def class_names(self) -> tuple[str, ...]:
        """The name of each class, by its label."""
        return self.manifest.class_names

    @property
    def shard_paths(self) -> list[Path]:
        """The shards, in order."""
        directory = split_dir(self.root, self.name)
        return [directory / shard.name for shard in self.info.shards]

    @cached_property
    def index(self) -> Index:
        """The table of samples, without keys. Raises ShardfeedError where it does not fit the manifest."""
        index = Index.read(self._index_path)
        if len(index) != len(self):
            raise ShardfeedError(
                f"{self._index_path} has {len(index):,} rows, the manifest says {len(self):,} samples: "
                "copy or make the data set again"
            )
        return index

    @property
    def labels(self) -> npt.NDArray[np.int32]:
        """The class of each sample, (n,)."""
        return self.index.label

    def keys(self) -> npt.NDArray[np.object_]:
        """The key of each sample in its tar, (n,) of str; read from disk at each call."""
        keys = Index.read(self._index_path, keys=True).key
        assert keys is not None
        return keys

    @property
    def _index_path(self) -> Path:
        return split_dir(self.root, self.name) / INDEX


def open_dataset(root: str | Path) -> dict[str, Split]:
    """The splits of the data set in `root`, by name. Raises UsageError where `root` holds no finished data set."""
    manifest = Manifest.read(root)
    return {name: Split(Path(root), name, manifest) for name in manifest.splits}


def choose_split(root: str | Path, names: Sequence[str]) -> Split:
    """The first of `names` that the data set in `root` has. Raises UsageError where it has none of them."""
    splits = open_dataset(root)
    for name in names:
        if name in splits:
            return splits[name]
    raise UsageError(f"{root} has no split {' or '.join(names)}: it has {', '.join(splits)}")
