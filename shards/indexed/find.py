"""Where the index of tars of others is looked for: beside the tars, then in the cache, under the name of the source."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from shards.common.errors import UsageError
from shards.format.layout import MANIFEST
from shards.indexed.source import directory_of, identity, index_name, listed, names_tars
from shards.remote.cache import Cache, cache_home
from shards.remote.urls import is_url

# What a conversion that was stopped has beside its shards: they are no tars of others.
UNFINISHED = ".work"


def beside(place: str | Path) -> Path | None:
    """The directory for an index beside the tars; None behind a URL."""
    if is_url(identity(place)):
        return None
    return Path(directory_of(place)) / index_name(place) if names_tars(place) else Path(identity(place))


def in_cache(place: str | Path, cache: Path) -> Path:
    """The directory for an index in a cache."""
    return cache / "datasets" / hashlib.sha256(f"tars\n{identity(place)}".encode()).hexdigest()[:32]


def find_index(place: str | Path, cache: Cache | None) -> Path | None:
    """The directory that holds the index of `place`; None where there is none.

    A directory that holds a manifest itself is no source of tars. Raises UsageError where `place` names tars, or holds
    some, that have no index.
    """
    for directory in _candidates(place, cache):
        if (directory / MANIFEST).is_file():
            return directory
    if names_tars(place) or _holds_tars(place):
        raise UsageError(
            f"{place} is not indexed yet: run `python -m shards index '{place}'` once, which reads each tar and writes "
            "an index beside them, or in the cache"
        )
    return None


def _candidates(place: str | Path, cache: Cache | None) -> Iterator[Path]:
    if names_tars(place) and (here := beside(place)) is not None:
        yield here
    if cache is not None:
        yield in_cache(place, cache.directory)
    yield in_cache(place, cache_home())


def _holds_tars(place: str | Path) -> bool:
    """Whether a directory of this machine holds tars; behind a URL that is asked only when an index is made."""
    path = Path(place)
    if is_url(str(place)) or not path.is_dir() or (path / UNFINISHED).exists():
        return False
    return bool(listed(str(path)))
