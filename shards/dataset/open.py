"""Opening a data set: its manifest is read, and what it names becomes splits.

It lies in a directory, or behind a URL. The manifest of a remote data set is fetched at each opening, its indices once,
into the cache; its shards follow when they are needed (shards/remote/prefetch.py).
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Never

from shards.common.arguments import as_path, shown
from shards.common.atomic import replacing
from shards.common.errors import UsageError
from shards.common.locks import holding
from shards.dataset.split import Origin, Split, cache_is_named
from shards.format.layout import INDEX, MANIFEST
from shards.format.manifest import Manifest
from shards.indexed.again import warn_of_changes
from shards.indexed.find import find_index
from shards.indexed.places import check_below, urls
from shards.indexed.source import common_directory
from shards.remote.cache import Cache
from shards.remote.object_store import ObjectStore
from shards.remote.urls import is_url

TRAINING = "train"
# What a split to validate on is called, the usual name first.
VALIDATION = ("validation", "val", "valid", "dev", "test")


class Dataset(dict[str, Split]):
    """The splits of a data set, by name."""

    def __missing__(self, name: object) -> Never:
        raise UsageError(f"no split {shown(name)}: the data set has {', '.join(self)}")

    @property
    def validation(self) -> Split:
        """The split to validate on, called validation, val, valid, dev or test. Raises UsageError where none is."""
        for name in VALIDATION:
            if name in self:
                return self[name]
        raise UsageError(f"no split is called {' or '.join(VALIDATION)}: the data set has {', '.join(self)}")

    def __repr__(self) -> str:
        first = next(iter(self.values()))
        splits = ", ".join(f"{name} {len(split):,}" for name, split in self.items())
        return f"<Dataset of {len(first.class_names):,} classes, {splits} samples, {first.place}>"


def open_dataset(root: str | Path, cache: Cache | None = None) -> Dataset:
    """The splits of the data set in the directory or behind the URL `root`, by name.

    `root` may also name tars that others wrote and `python -m shards index` has indexed: a directory or a pattern such
    as `train-{0000..1023}.tar`, or a URL of these.

    `cache`: keeps the shards of a remote data set. Raises UsageError where there is no finished data set, or for the
    name of a split that it does not have, and ShardfeedError where a remote one cannot be reached.
    """
    place = as_path("the directory of a data set", root)
    if not (cache is None or isinstance(cache, Cache)):
        raise UsageError(f"cache must be a Cache of shards/remote/cache.py, not {shown(cache)}")
    if not is_url(root) and not (place / MANIFEST).is_file() and is_a_split(place):
        raise UsageError(f"{place} is one split of the data set in {place.parent}: give that directory")
    if not (place / MANIFEST).is_file() and (index := find_index(root if is_url(root) else place, cache)) is not None:
        return _open_here(index, cache)
    if is_url(root):
        remote, cache = ObjectStore(str(root)), cache or Cache()
        with cache_is_named(cache):
            cache.claim()
            return _open_remote(remote, cache)
    return _open_here(place, cache)


def is_a_split(place: Path) -> bool:
    """Whether `python -m preprocess` made the directory for one of the splits of a data set."""
    return (place / INDEX).is_file() and (place.parent / MANIFEST).is_file()


def choose_split(root: str | Path, names: Sequence[str], cache: Cache | None = None) -> Split:
    """The first of `names` that the data set in `root` has, its index read and compared.

    Raises UsageError where it has none of them, ShardfeedError for a damaged index.
    """
    splits = open_dataset(root, cache)
    for name in names:
        if name in splits:
            _ = splits[name].index
            return splits[name]
    raise UsageError(f"{root} has no split {' or '.join(names)}: it has {', '.join(splits)}")


def _open_here(place: Path, cache: Cache | None) -> Dataset:
    """The data set whose manifest lies in a directory; its shards may lie elsewhere, behind a URL too."""
    manifest, origin = Manifest.read(place), None
    if manifest.indexed:
        warn_of_changes(place, manifest)
        if remote := urls(manifest):
            origin = Origin(ObjectStore(common_directory(remote)), cache or Cache())
            with cache_is_named(origin.cache):
                origin.cache.claim()
    return Dataset({name: Split(place, name, manifest, origin) for name in manifest.splits})


def _open_remote(remote: ObjectStore, cache: Cache) -> Dataset:
    try:
        data = remote.read(MANIFEST)
    except FileNotFoundError:
        raise UsageError(
            f"{remote} holds no {MANIFEST}, so it is not a finished data set: give the OUT of "
            "`python -m preprocess SOURCE OUT`, and run that (again) if it was stopped; tars of others are indexed "
            f"first: `python -m shards index {remote}`"
        ) from None
    if data.lstrip()[:1] == b"<":
        raise UsageError(
            f"{remote.at(MANIFEST)} is a web page and not a manifest: give the URL under which the files themselves "
            "are sent, and check that it needs no log-in"
        )
    manifest = Manifest.parse(data, remote.at(MANIFEST))
    check_below(manifest, remote.at(MANIFEST))
    # The directory is named by URL and content, so an index never meets a manifest that it does not belong to.
    name = hashlib.sha256(f"{remote}\n".encode() + data).hexdigest()[:32]
    root = cache.directory / "datasets" / name
    if not (root / MANIFEST).exists():  # also a cache that this user may only read
        with holding(root / "lock"), replacing(root / MANIFEST) as file:
            file.write(data)
    return Dataset({name: Split(root, name, manifest, Origin(remote, cache)) for name in manifest.splits})
