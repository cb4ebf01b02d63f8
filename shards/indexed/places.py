"""Where the shards of a manifest lie: beside it, or, for tars of others, each in a place of its own."""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import numpy as np
from zlib_ng.zlib_ng import crc32

from shards.common.errors import ShardfeedError, UsageError
from shards.format.index import Index
from shards.format.layout import INDEX, split_dir
from shards.format.manifest import IndexInfo, Manifest, ShardInfo
from shards.remote.urls import is_url

LOOKS = 16  # tars that are looked at together: a network disk answers each after a while
# The number of a tar in its split, its path, and the time of its last change.
_Touched = tuple[int, Path, int]


def shard_url(base: str, split: str, shard: ShardInfo) -> str:
    """The URL of a shard, or the path of one on this machine. `base`: the URL of the data set."""
    if shard.place:
        return shard.place if lies_alone(shard.place) else f"{base}/{shard.place}"
    return f"{base}/{split}/{shard.name}"


def lies_alone(place: str) -> bool:
    """Whether the place of a shard does not depend on the place of the manifest."""
    return place.startswith("/") or is_url(place)


def urls(manifest: Manifest) -> list[str]:
    """The places of all shards that are URLs."""
    return [shard.place for info in manifest.splits.values() for shard in info.shards if is_url(shard.place)]


def check_below(manifest: Manifest, where: str) -> None:
    """Raises UsageError for a manifest behind a URL whose shards do not lie below it: it may be a stranger's."""
    for split, info in manifest.splits.items():
        for number, shard in enumerate(info.shards):
            if shard.place and (lies_alone(shard.place) or shard.place.startswith("..")):
                raise UsageError(
                    f"{where}: splits.{split}.shards[{number}] lies in {shard.place}, outside of the data set: an "
                    "index behind a URL must lie in the directory of its tars (give `python -m shards index` the URL)"
                )


def changes(root: Path, manifest: Manifest) -> list[str]:
    """What has changed of tars on this machine since they were indexed, a line for each.

    A copy has another time and is the same: of a tar whose time alone differs the last image is compared.
    """
    found: list[str] = []
    for split, info in manifest.splits.items():
        touched: list[_Touched] = []
        for number, shard in enumerate(info.shards):
            if is_url(shard.place):
                continue
            path = shard.path(root, split)
            try:
                status = path.stat()
            except OSError as error:
                found.append(f"{path} ({error.strerror})")
                continue
            if status.st_size != shard.bytes:
                found.append(f"{path} has {status.st_size:,} bytes, the index says {shard.bytes:,}")
            elif shard.modified and shard.modified != str(status.st_mtime_ns):
                touched.append((number, path, status.st_mtime_ns))
        if touched:
            others = _other_content(split_dir(root, split) / INDEX, info.index, tuple(touched))
            found += [f"{path} holds other images than the index says" for path in others]
    return found


@lru_cache(maxsize=16)  # a run opens its data set several times
def _other_content(path: Path, _: IndexInfo | None, touched: tuple[_Touched, ...]) -> tuple[Path, ...]:
    """The tars whose last image has another CRC-32 than the index in `path` says."""
    try:
        index = Index.read(path)
    except ShardfeedError:
        return ()  # which is said when the index is used
    last = np.searchsorted(index.shard, [number for number, *_ in touched], "right") - 1

    def same(tar: _Touched, row: int) -> bool:
        if row < 0 or index.shard[row] != tar[0]:
            return True  # none of its images is used
        try:
            with tar[1].open("rb", buffering=0) as file:
                data = os.pread(file.fileno(), int(index.size[row]), int(index.offset[row]))
        except (OSError, ValueError, OverflowError, MemoryError):
            return False
        return crc32(data) == int(index.crc32[row])

    with ThreadPoolExecutor(LOOKS) as threads:
        alike = list(threads.map(same, touched, last.tolist()))
    return tuple(tar[1] for tar, each in zip(touched, alike, strict=True) if not each)
