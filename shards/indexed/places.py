"""Where the shards of a manifest lie: beside it, or, for tars of others, each in a place of its own."""

import warnings
from collections.abc import Iterator
from pathlib import Path

from shards.common.errors import ShardfeedWarning, UsageError
from shards.common.terminal import counted
from shards.format.manifest import Manifest, ShardInfo
from shards.remote.urls import is_url


def shard_url(base: str, split: str, shard: ShardInfo) -> str:
    """The URL of a shard, or the path of one on this machine. `base`: the URL of the data set."""
    if shard.place:
        return shard.place if lies_alone(shard) else f"{base}/{shard.place}"
    return f"{base}/{split}/{shard.name}"


def lies_alone(shard: ShardInfo) -> bool:
    """Whether the place of a shard does not depend on the place of the manifest."""
    return shard.place.startswith("/") or is_url(shard.place)


def urls(manifest: Manifest) -> list[str]:
    """The places of all shards that are URLs."""
    return [shard.place for info in manifest.splits.values() for shard in info.shards if is_url(shard.place)]


def check_below(manifest: Manifest, where: str) -> None:
    """Raises UsageError for a manifest behind a URL whose shards do not lie below it: it may be a stranger's."""
    for split, info in manifest.splits.items():
        for number, shard in enumerate(info.shards):
            if shard.place and (lies_alone(shard) or shard.place.startswith("..")):
                raise UsageError(
                    f"{where}: splits.{split}.shards[{number}] lies in {shard.place}, outside of the data set: an "
                    "index behind a URL must lie in the directory of its tars (give `python -m shards index` the URL)"
                )


def warn_of_changes(root: Path, manifest: Manifest) -> None:
    """Warns, in one line, of tars on this machine that have changed since they were indexed."""
    changed = list(_changes(root, manifest))
    if changed:
        shards = sum(len(info.shards) for info in manifest.splits.values())
        have = "has" if len(changed) == 1 else "have"
        warnings.warn(
            f"{counted(len(changed), 'tar')} of {shards:,} {have} changed since the index was made: {changed[0]}"
            f"{', ...' if len(changed) > 1 else ''}; run `python -m shards index {manifest.source}` again",
            ShardfeedWarning,
            stacklevel=4,
        )


def _changes(root: Path, manifest: Manifest) -> Iterator[str]:
    for split, info in manifest.splits.items():
        for shard in info.shards:
            if is_url(shard.place):
                continue
            path = shard.path(root, split)
            try:
                status = path.stat()
            except OSError as error:
                yield f"{path} ({error.strerror})"
                continue
            if status.st_size != shard.bytes:
                yield f"{path} has {status.st_size:,} bytes, the index says {shard.bytes:,}"
            elif shard.modified and shard.modified != str(status.st_mtime_ns):
                yield f"{path} was written to or copied"
