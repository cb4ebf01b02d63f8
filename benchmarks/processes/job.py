"""What a contender is told, and what it says of itself: the two values that cross the line between the processes."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.measure.harness import nothing
from benchmarks.measure.result import Setting
from benchmarks.peers.naive import Recipe
from shards.dataset import Split, open_dataset


@dataclass(frozen=True)
class Job:
    """The work of one contender.

    data, split: shards, and the split of them to read; every contender delivers these images.
    source, image_column, label_column: the data set they were made from, for contenders that read originals.
    work: directory for what a contender makes of the shards before it starts: its own format.
    recipe: what a batch is.
    threads: threads or worker processes that prepare batches, whichever the contender has.
    options: for our own loader, beside its defaults.
    """

    data: str
    split: str
    source: str
    image_column: str
    label_column: str
    work: str
    recipe: Recipe
    threads: int
    options: Mapping[str, Setting] = field(default_factory=dict)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Job":
        """The job that `dataclasses.asdict` made `value` of."""
        return cls(**{**value, "recipe": Recipe(**value["recipe"])})

    def opened(self) -> Split:
        """The split to read."""
        return open_dataset(self.data)[self.split]


@dataclass(frozen=True)
class Peer:
    """A contender that is ready to start; the fields are those of `harness.Contender`.

    settings: what was chosen for it, versions of its own libraries included.
    images: how many images a batch holds, where a batch is not (images, labels).
    """

    open: Callable[[], AbstractContextManager[Iterator[Any]]]
    settings: Mapping[str, Setting]
    depth: int
    stride: int = 1
    sync: Callable[[], object] = nothing
    images: Callable[[Any], int] | None = None


def stored_bytes(split: Split) -> list[npt.NDArray[np.uint8]]:
    """The encoded bytes of every image of the split, by its row, each an array (size,): views of the shards."""
    shards = [np.memmap(path, np.uint8, mode="r") for path in split.shard_paths]
    index = split.index
    places = zip(index.shard.tolist(), index.offset.tolist(), index.size.tolist(), strict=True)
    return [shards[shard][offset : offset + size] for shard, offset, size in places]


def own_format(job: Job, name: str, write: Callable[[Path], None]) -> Path:
    """The path of what `write(path)` makes of the shards; made once for each data set, and named after it.

    It is whole or absent: what an interrupted `write` left is removed before the next one, since some formats refuse
    to be written into a directory that holds something.
    """
    split = job.opened()
    path = Path(job.work) / f"{name}-{split.name}-{split.info.shards[0].sha256[:12]}-{len(split)}"
    done = path.with_name(path.name + ".done")
    if not done.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        write(path)
        done.touch()
    return path
