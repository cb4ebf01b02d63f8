"""One split of a data set, or a part of one: its index, read when it is first used, and the places of its shards."""

import contextlib
import dataclasses
import hashlib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Never

import numpy as np
import numpy.typing as npt

from shards.common.arguments import shown
from shards.common.atomic import replacing
from shards.common.errors import ShardfeedError, UsageError
from shards.common.locks import holding
from shards.common.terminal import cache_moves, counted
from shards.dataset.parts import (
    View,
    balanced_rows,
    check_fraction,
    chosen_rows,
    class_numbers,
    mapped_classes,
    numbers_by_name,
    read_class_map,
    read_names,
    rows_of_names,
)
from shards.format.index import DTYPES, Index
from shards.format.layout import INDEX, split_dir
from shards.format.manifest import Manifest, SplitInfo, index_info
from shards.format.mend import how_to_mend
from shards.indexed.again import index_command
from shards.indexed.places import shard_url
from shards.remote.cache import WRONG_BYTES, Cache
from shards.remote.object_store import ObjectStore
from shards.remote.shards import RemoteShards
from shards.sampling.order import held_out


@dataclass(frozen=True)
class Origin:
    """Where a remote data set lies, and where its shards are kept on this machine."""

    remote: ObjectStore
    cache: Cache


@dataclass(frozen=True, repr=False, eq=False)
class Split:
    """One split of a data set, or a part of one. A sample's id is its row in `index`.

    `root`: the directory of the data set; for a remote one, the directory in the cache that holds its manifest and
    indices. `view`: what a part shows of the whole split.
    """

    root: Path
    name: str
    manifest: Manifest
    origin: Origin | None = None
    view: View | None = None

    def __len__(self) -> int:
        return self.info.samples if self.view is None else len(self.view.rows)

    def __getitem__(self, index: Any) -> Never:
        raise UsageError(
            "a split knows its samples and reads no image: Loader(split, batch_size=64, train=True) gives batches; it "
            "needs no DataLoader"
        )

    def __repr__(self) -> str:
        shards, classes = len(self.info.shards), len(self.class_names)
        samples, where = counted(len(self), "sample"), counted(shards, "shard")
        return f"<Split {self.title}: {samples} in {where}, {counted(classes, 'class', 'classes')}, {self.place}>"

    @property
    def title(self) -> str:
        """The name for people, which says what part of the split this is."""
        return self.name if self.view is None else self.view.title

    @property
    def short_title(self) -> str:
        """The name before a figure, as in "test loss": held-out, for a part that is held out of training."""
        return "held-out" if self.view is not None and self.view.held_out else self.name

    @property
    def part_identity(self) -> int:
        """A number that tells a part of a split, or several splits, from all others; 0 for a whole split."""
        return 0 if self.view is None else self.view.identity

    def select(self, ids: Any) -> "Split":
        """The samples with these ids, or where a mask (n,) is true; in this split's order, whatever theirs.

        Raises UsageError where they are no ids, where one comes twice, and where there are none.
        """
        rows = chosen_rows(ids, len(self))
        return self._part(rows, f"a part of {self.title}")

    def where(self, classes: Sequence[str | int]) -> "Split":
        """The samples of these classes, given by name or number, as a split that has these classes alone.

        The classes keep their order and are numbered anew from 0. A name may be the first word of a class name, such
        as a WNID. Raises UsageError for a class that there is not, and where there is no sample.
        """
        numbers = class_numbers(classes, self.class_names)
        table = np.full(len(self.class_names), -1, np.int32)
        table[numbers] = np.arange(len(numbers))
        names = tuple(self.class_names[number] for number in numbers)
        return self._relabelled(table, names, f"{counted(len(names), 'class', 'classes')} of {self.title}")

    def subset(self, what: float | str | Path) -> "Split":
        """A fraction of each class, or what a file names: classes (as `where` takes them) or samples, one a line.

        A fraction takes at least one sample a class, and always the same ones. Samples are named by their keys, or by
        a column of text that `python -m preprocess --keep` kept.
        Raises UsageError for any other fraction, and for a file with a name that the split does not have.
        """
        if not isinstance(what, str | Path):
            rows = balanced_rows(self.labels, what)
            return self._part(rows, f"{100 * what:g}% of {self.title}")
        names = read_names(what)
        if names[0] in numbers_by_name(self.class_names):
            return self.where(names)
        texts = [name for name, kind in self.manifest.columns.items() if kind == "string"]
        return self.select(rows_of_names(what, names, [self.keys(), *map(self.column, texts)]))

    def map_classes(self, classes: Mapping[str, str] | Mapping[int, str] | str | Path) -> "Split":
        """The samples under other classes: a mapping of class names or numbers to new names, or a file with a line
        for each.

        The new classes are numbered in the order of their names. Samples of classes that have no new one are left
        out. Raises UsageError for a class that there is not, and for a file that cannot be read so.
        """
        new_of = classes if isinstance(classes, Mapping) else read_class_map(classes)
        table, names = mapped_classes(new_of, self.class_names)
        return self._relabelled(table, names, f"{self.title} in {counted(len(names), 'class', 'classes')}")

    def hold_out(self, fraction: float) -> tuple["Split", "Split"]:
        """The split without a random `fraction` of its samples, and those: always the same ones, whatever the seed.

        At least one sample is in either part. Raises UsageError for a fraction that is not between 0 and 1, and for a
        split of fewer than two samples.
        """
        check_fraction("to hold out", fraction)
        if len(self) < 2:
            raise UsageError(f"nothing can be held out of {self!r}")
        held, share = held_out(len(self), fraction), f"{100 * fraction:g}%"
        rest = self._part(np.flatnonzero(~held), f"{self.title} without the {share} held out", divided=self.title)
        titled = f"the {share} held out of {self.title}"
        return rest, self._part(np.flatnonzero(held), titled, held_out=True, divided=self.title)

    def _part(self, ids: npt.NDArray[np.int64], title: str, **changes: Any) -> "Split":
        """Samples of this split, by ascending id; `changes` are of its view."""
        whole = self.view or View(np.arange(len(self)), self.name)
        labels = None if whole.labels is None else whole.labels[ids]
        changes = {"rows": whole.rows[ids], "title": title, "labels": labels, **changes}
        return dataclasses.replace(self, view=dataclasses.replace(whole, **changes))

    def _relabelled(self, table: npt.NDArray[np.int32], names: tuple[str, ...], title: str) -> "Split":
        """The samples whose class has a number of 0 or more in `table`, under that number."""
        labels = table[self.labels]
        ids = np.flatnonzero(labels >= 0)
        if not len(ids):
            raise UsageError(f"{self.title} has no sample of these classes")
        return self._part(ids, title, labels=labels[ids], class_names=names)

    @property
    def place(self) -> str:
        """The directory or the URL of the data set, for people."""
        return str(self.root if self.origin is None else self.origin.remote)

    def how_to_mend(self) -> str:
        """What makes damaged files of the data set again, in words."""
        if self.manifest.indexed:
            return f"`{index_command(self.root, self.manifest)}` indexes the tars anew"
        return how_to_mend(self.place)

    @property
    def info(self) -> SplitInfo:
        """What the manifest says of this split, as a whole."""
        return self.manifest.splits[self.name]

    @property
    def class_names(self) -> tuple[str, ...]:
        """The name of each class, by its label."""
        names = None if self.view is None else self.view.class_names
        return self.manifest.class_names if names is None else names

    @property
    def shard_paths(self) -> list[Path]:
        """The shards, in order. Raises UsageError for a remote data set: see `remote_shards`."""
        if self.origin is not None:
            raise UsageError(f"{self.origin.remote} is not on this machine: copy it here first, and give the directory")
        return [shard.path(self.root, self.name) for shard in self.info.shards]

    def shard_place(self, number: int) -> str:
        """The path or the URL of a shard, for people."""
        shard = self.info.shards[number]
        if self.origin is not None:
            return shard_url(str(self.origin.remote), self.name, shard)
        return str(shard.path(self.root, self.name))

    def remote_shards(self) -> RemoteShards:
        """Access to single shards of a remote data set."""
        assert self.origin is not None
        remote, shards, cache = self.origin.remote, self.info.shards, self.origin.cache
        if not self.manifest.indexed:
            return RemoteShards(ObjectStore(remote.at(self.name)), shards, cache)
        places = [shard_url(str(remote), self.name, shard).removeprefix(f"{remote}/") for shard in shards]
        return RemoteShards(remote, shards, cache, places)

    @cached_property
    def index(self) -> Index:
        """The table of samples, without keys. Raises ShardfeedError where it does not fit the manifest."""
        index = self._whole_index()
        if self.view is None:
            return index
        part = index.rows(self.view.rows)
        return part if self.view.labels is None else dataclasses.replace(part, label=self.view.labels)

    def _whole_index(self) -> Index:
        path = self._index_path()
        # A wrong length is the plainer message, so it comes before the hash.
        index = Index.read(path)
        index.check(path, self.info.shards, len(self.manifest.class_names), self.manifest.settings.encoding)
        if self.info.index is not None and index_info(path) != self.info.index:
            advice = "copy the data set again, or mend it with `python -m preprocess SOURCE OUT --repair`"
            if self.manifest.indexed:
                advice = f"run `{index_command(self.root, self.manifest)}` again"
            raise ShardfeedError(
                f"{path} is not the index that the manifest names (its SHA-256 differs): it is damaged, or of another "
                f"version of the data set; {advice}"
            )
        return index

    @property
    def labels(self) -> npt.NDArray[np.int32]:
        """The class of each sample, (n,)."""
        return self.index.label

    @cached_property
    def labels_identity(self) -> int:
        """A number that differs for samples of other labels, or in another order; the same for every copy; 32 bits."""
        return zlib.crc32(self.labels.astype("<i4").tobytes())

    def keys(self) -> npt.NDArray[np.object_]:
        """The key of each sample in its tar, (n,) of str; read from disk at each call."""
        keys = self._whole_keys()
        return keys if self.view is None else keys[self.view.rows]

    def column(self, name: str) -> npt.NDArray[Any]:
        """A column of the index, (n,); read from disk at each call.

        The further ones are those that `python -m preprocess --keep` took from the source: int64, or objects of type
        str. Raises UsageError for a column that is not there.
        """
        if name in DTYPES:
            values: npt.NDArray[Any] = getattr(self.index, name)
            return values
        if name == "key":
            return self.keys()
        if name not in self.manifest.columns:
            there = ", ".join((*DTYPES, "key", *self.manifest.columns))
            raise UsageError(f"the index of {self.name} has no column {shown(name)}: it has {there}")
        column = self._whole_column(name)
        return column if self.view is None else column[self.view.rows]

    def _whole_column(self, name: str) -> npt.NDArray[Any]:
        column: npt.NDArray[Any] = (
            Index.read(self._index_path(), extra=[name]).extra[name].to_numpy(zero_copy_only=False)
        )
        return column

    def _whole_keys(self) -> npt.NDArray[np.object_]:
        keys = Index.read(self._index_path(), keys=True).key
        assert keys is not None
        return keys

    def _index_path(self) -> Path:
        path = split_dir(self.root, self.name) / INDEX
        if self.origin is None or path.exists():
            return path
        with cache_is_named(self.origin.cache), holding(self.root / "lock"):
            if not path.exists():  # another process may have fetched it while this one waited
                data = self._remote_index(self.origin.remote, f"{self.name}/{INDEX}")
                with replacing(path) as file:
                    file.write(data)
        return path

    def _remote_index(self, remote: ObjectStore, name: str) -> bytes:
        """The bytes of a remote index. Raises ShardfeedError where it is missing or differs from the manifest."""
        expected = self.info.index and self.info.index.sha256
        for _ in range(WRONG_BYTES):
            try:
                data = remote.read(name)
            except FileNotFoundError:
                missing = f"{remote.at(name)} is missing: the data set is not whole, upload it again"
                raise ShardfeedError(missing) from None
            found = hashlib.sha256(data).hexdigest()
            if expected in (None, found):
                return data
        raise ShardfeedError(
            f"{remote.at(name)} arrives with other bytes than its manifest says (SHA-256 {found[:8]}, manifest "
            f"{str(expected)[:8]}; {WRONG_BYTES} attempts): it is damaged there, or of another version of the data "
            "set; upload it again"
        )


@contextlib.contextmanager
def cache_is_named(cache: Cache) -> Iterator[None]:
    """Turns an OSError of the cache into a line that names the cache and the option that moves it."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ShardfeedError(f"the cache in {cache.directory} cannot be written: {reason} ({cache_moves()})") from None
