"""The bytes of a split's samples, from memory-mapped shards.

A read is a view of the mapping: no copy, no system call, and where the page cache is cold the page
faults happen in DALI's decode threads, several at a time, because they are the first to touch the
bytes. `announce` tells the kernel a few batches earlier, so that the disk is busy before they do.
"""

import mmap
import resource
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shards.errors import ShardfeedError

_PAGE = mmap.PAGESIZE


class MappedShards:
    """Shard files, mapped into memory for reading.

    `paths` and `sizes`: each shard and its length in bytes by the manifest. Raises ShardfeedError
    for a shard that is missing or of another length.
    """

    def __init__(self, paths: Sequence[Path], sizes: Sequence[int]) -> None:
        _allow_open_files(len(paths))
        self._maps: list[mmap.mmap] = []
        self._views: list[npt.NDArray[np.uint8]] = []
        for path, size in zip(paths, sizes, strict=True):
            mapped = _map(path, size)
            # Without this the kernel reads on past every random read, for pages that nobody wants.
            mapped.madvise(mmap.MADV_RANDOM)
            self._maps.append(mapped)
            self._views.append(np.frombuffer(mapped, np.uint8))

    def read(self, shard: int, offset: int, size: int) -> npt.NDArray[np.uint8]:
        """The bytes [offset, offset + size) of a shard: a uint8 view (size,), valid as long as it is referenced."""
        return self._views[shard][offset : offset + size]

    def announce(self, shard: int, offset: int, size: int) -> None:
        """Asks the kernel to read [offset, offset + size) of a shard into the page cache; returns at once."""
        start = offset // _PAGE * _PAGE
        self._maps[shard].madvise(mmap.MADV_WILLNEED, start, offset + size - start)


def _map(path: Path, size: int) -> mmap.mmap:
    try:
        with path.open("rb") as file:
            actual = file.seek(0, 2)
            if actual == size:
                return mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ)
    except OSError as error:
        raise ShardfeedError(f"cannot read shard {path}: {error.strerror}; copy or make the data set again") from None
    raise ShardfeedError(
        f"shard {path} has {actual:,} bytes, the manifest says {size:,}: it was cut off or changed; "
        "copy or make the data set again"
    )


def _allow_open_files(count: int) -> None:
    """Raises the soft limit of open files if need be: a mapping keeps its file open, and ImageNet has 1,282 shards."""
    need = count + 256
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < need:
        if hard != resource.RLIM_INFINITY and hard < need:
            raise ShardfeedError(
                f"{count} shards need {need} open files, this system allows {hard}: raise the hard limit "
                "(ulimit -Hn, limits.conf) or make larger shards (--shard-size)"
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (need, hard))
