"""The contract between the measuring process and a peer: what the peer is told, and what it answers."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from benchmarks.measure.harness import nothing
from benchmarks.measure.result import Setting
from benchmarks.measure.settings import BatchSpec
from shards.dataset import Split, open_dataset
from shards.remote.cache import Cache

if TYPE_CHECKING:
    import torch  # not otherwise: --help and a mistyped option need not wait for it

Batch: TypeAlias = "tuple[torch.Tensor, torch.Tensor]"
# What a turn finds. memory: the data in the page cache, from the turns before. disk: nothing in the page cache.
# http: the shards behind a web server on this machine, and an empty cache. The last two end with the first epoch.
Reads = Literal["memory", "disk", "http"]
# What this process's peer reads of its own: other peers may have mapped theirs, which therefore stay in memory.
_own_formats: set[Path] = set()


@dataclass(frozen=True)
class PeerTask:
    """The work of one peer.

    data, split: shards (a directory or a URL), and the split of them to read; every peer delivers these images.
    source, image_column, label_column: the data set that the shards were made from, for peers that read originals.
    work: directory for the peer's own format of the images.
    batch: what a batch is.
    threads: threads or worker processes that prepare batches, whichever the peer has.
    options: from the roster, for peers that stand there more than once.
    reads: what each turn finds.
    """

    data: str
    split: str
    source: str
    image_column: str
    label_column: str
    work: str
    batch: BatchSpec
    threads: int
    options: Mapping[str, Setting] = field(default_factory=dict)
    reads: Reads = "memory"

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "PeerTask":
        """The task from which `dataclasses.asdict` made `value`."""
        return cls(**{**value, "batch": BatchSpec(**value["batch"])})

    def open_split(self) -> Split:
        """The split to read."""
        cache = Cache(self.cache) if self.reads == "http" else None
        return open_dataset(self.data, cache)[self.split]

    @property
    def cache(self) -> Path:
        """The directory for shards that were downloaded."""
        return Path(self.work) / "cache"

    def before_turn(self) -> None:
        """Makes the disk and the cache as `reads` has them."""
        if self.reads == "http":
            shutil.rmtree(self.cache, ignore_errors=True)
        elif self.reads == "disk":
            from benchmarks.measure.cold import forget

            own = (path for place in _own_formats for path in (place, *place.rglob("*")) if path.is_file())
            forget([*self.open_split().shard_paths, *own])


@dataclass(frozen=True)
class Peer:
    """A loader that is ready to start; the fields are those of `harness.Contender`.

    settings: what was chosen for it, versions of its own libraries included.
    images: the number of images in a batch, where a batch is not (images, labels).
    """

    open: Callable[[], AbstractContextManager[Iterator[Any]]]
    settings: Mapping[str, Setting]
    depth: int
    stride: int = 1
    sync: Callable[[], object] = nothing
    images: Callable[[Any], float] | None = None


def stored_bytes(split: Split) -> list[npt.NDArray[np.uint8]]:
    """The encoded bytes of every image of the split, by its row, each an array (size,): views of the shards."""
    shards = [np.memmap(path, np.uint8, mode="r") for path in split.shard_paths]
    index = split.index
    rows = zip(index.shard.tolist(), index.offset.tolist(), index.size.tolist(), strict=True)
    return [shards[shard][offset : offset + size] for shard, offset, size in rows]


def own_format(task: PeerTask, name: str, write: Callable[[Path], None]) -> Path:
    """The path of what `write(path)` makes of the shards; written once per data set, and named after it.

    What an interrupted `write` left is removed first, since some formats refuse a directory that is not empty.
    """
    split = task.open_split()
    path = Path(task.work) / f"{name}-{split.name}-{split.info.shards[0].sha256[:12]}-{len(split)}"
    _own_formats.add(path)
    done = path.with_name(path.name + ".done")
    if not done.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        write(path)
        done.touch()
    return path
