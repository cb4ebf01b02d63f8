"""The interface of a source: labelled images, read one at a time as encoded bytes; and the source that lies on disk."""

import dataclasses
import hashlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from shards.common.errors import UsageError

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

HIDDEN_LABEL = -1
# Rows of each split whose bytes enter the fingerprint; of all rows the length and the label do.
FINGERPRINT_ROWS = 64


@dataclass(frozen=True)
class Row:
    """One labelled image, still encoded: the bytes of its file, its class number, and its name in the source."""

    data: bytes
    label: int
    path: str


class Source(Protocol):
    """What every kind of source offers. Its pickle is small, so that each worker process can have a copy."""

    @property
    def name(self) -> str:
        """The name that the user gave."""

    @property
    def fingerprint(self) -> str:
        """Hex digest of the content, whatever its place and name."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """The class names; a label is a position in them."""

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits."""

    def num_rows(self, split: str) -> int:
        """The number of rows of a split."""

    def row(self, split: str, row: int, /) -> Row:
        """One image with its label. Raises OSError where its file cannot be read."""

    def passed_over(self, split: str) -> "Sequence[PassedOver]":
        """The files of a split that are no rows of it."""

    @property
    def keep(self) -> tuple[str, ...]:
        """The names of the columns that go into the index."""

    def columns(self, split: str, rows: Sequence[int]) -> "Mapping[str, pa.Array]":
        """Those columns, of these rows of a split: strings or int64."""


@dataclass(frozen=True)
class PassedOver:
    """A file, or a directory with all in it, among the images of a source that is no row, and why."""

    path: str
    reason: str


class Images(Protocol):
    """The encoded images of one split, read one at a time."""

    def __len__(self) -> int: ...

    def lengths(self) -> npt.NDArray[np.int64]:
        """The length of each image in bytes, (n,), without reading it; -1 where there is no image."""

    def name(self, row: int) -> str:
        """The name of one image in its source."""

    def read(self, row: int) -> tuple[bytes, str]:
        """The bytes and the name of one image. Raises OSError where its file cannot be read."""

    def table(self) -> "datasets.Dataset":
        """The images as the column "image" that decodes to PIL images, for the naive loader of the benchmarks."""


@dataclass(frozen=True)
class StoredSource:
    """A source that lies on disk: the images of each split, and their labels, (n,) int32 class numbers.

    `others`: the files of each split that are passed over, where there are any; `kept`: the columns of each split that
    go into the index (kept.py).
    """

    name: str
    class_names: tuple[str, ...]
    images: Mapping[str, Images]
    labels: Mapping[str, npt.NDArray[np.int32]]
    fingerprint: str
    others: Mapping[str, tuple[PassedOver, ...]] = field(default_factory=dict)
    kept: "Mapping[str, Mapping[str, pa.Array]]" = field(default_factory=dict)

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self.images)

    def num_rows(self, split: str) -> int:
        return len(self.images[split])

    def row(self, split: str, row: int, /) -> Row:
        data, path = self.images[split].read(row)
        return Row(data, int(self.labels[split][row]), path)

    def passed_over(self, split: str) -> tuple[PassedOver, ...]:
        return self.others.get(split, ())

    @property
    def keep(self) -> tuple[str, ...]:
        return tuple(next(iter(self.kept.values()), {}))

    def columns(self, split: str, rows: Sequence[int]) -> "Mapping[str, pa.Array]":
        places = np.array(rows, np.int64)
        return {name: values.take(places) for name, values in self.kept.get(split, {}).items()}


@dataclass(frozen=True)
class ChosenSplits:
    """A source with only some of its splits."""

    source: Source
    splits: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def fingerprint(self) -> str:
        return self.source.fingerprint

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.source.class_names

    def num_rows(self, split: str) -> int:
        return self.source.num_rows(split)

    def row(self, split: str, row: int, /) -> Row:
        return self.source.row(split, row)

    def passed_over(self, split: str) -> Sequence[PassedOver]:
        return self.source.passed_over(split)

    @property
    def keep(self) -> tuple[str, ...]:
        return self.source.keep

    def columns(self, split: str, rows: Sequence[int]) -> "Mapping[str, pa.Array]":
        return self.source.columns(split, rows)


def stored_source(
    name: str,
    class_names: Sequence[str],
    images: Mapping[str, Images],
    labels: Mapping[str, npt.NDArray[np.int64]],
    hidden_allowed: bool,
) -> StoredSource:
    """A source of these images and labels, after a check of the labels.

    `hidden_allowed`: splits whose labels are all hidden are left out, with a line on stderr. Raises UsageError for any
    other label that is no class number, and where no split is left.
    """
    kept = list(images)
    if hidden_allowed:
        kept = [split for split in images if len(images[split]) and not np.all(labels[split] == HIDDEN_LABEL)]
        for split in images:
            if split not in kept:
                print(f"{name}: leaving out split {split}: it has no labels", file=sys.stderr)
    if not kept:
        raise UsageError(f"{name} has no labelled images")
    for split in kept:
        _check_labels(name, split, labels[split], len(class_names), kept)
    narrow = {split: labels[split].astype(np.int32) for split in kept}
    chosen = {split: images[split] for split in kept}
    return StoredSource(name, tuple(class_names), chosen, narrow, _fingerprint(class_names, chosen, narrow))


def named_classes(source: StoredSource, words: Mapping[str, str]) -> StoredSource:
    """The source with each class that is in `words` called "n01440764: tench, Tinca tinca", and the others as before.

    The fingerprint stays that of the bare classes: a list of names may be added or corrected later.
    """
    names = [f"{each}: {' '.join(words[each].split())}" if words.get(each) else each for each in source.class_names]
    return dataclasses.replace(source, class_names=tuple(names))


def printable(name: str) -> str:
    """A name of the file system as Unicode that can be written to a file: bytes that are no UTF-8 become \\xNN."""
    return os.fsencode(name).decode(errors="backslashreplace")


def choose(name: str, there: Sequence[str], wanted: Sequence[str]) -> tuple[str, ...]:
    """The wanted splits, each once. Raises UsageError for a split that is not in `there`."""
    for split in wanted:
        if split not in there:
            raise UsageError(f"{name} has no split {split}: it has {', '.join(there)}")
    return tuple(dict.fromkeys(wanted))


def _check_labels(name: str, split: str, labels: npt.NDArray[np.int64], classes: int, splits: Sequence[str]) -> None:
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if not len(labels):
        raise UsageError(f"split {split} of {name} has no rows: leave it out with --splits")
    if not len(wrong):
        return
    reason = ""
    if labels[wrong[0]] == HIDDEN_LABEL:
        reason = "; -1 is how the hub marks labels that are kept secret, as in test splits"
    others = [other for other in splits if other != split]
    advice = f": leave the split out with --splits {' '.join(others)}" if others else ""
    raise UsageError(
        f"{len(wrong):,} of {len(labels):,} labels in split {split} of {name} are not among the classes "
        f"0 to {classes - 1} (row {wrong[0]} has {labels[wrong[0]]}{reason}){advice}"
    )


def _fingerprint(
    class_names: Sequence[str], images: Mapping[str, Images], labels: Mapping[str, npt.NDArray[np.int32]]
) -> str:
    """Digest of the class names, all labels, all lengths, and the bytes of some rows spread over each split."""
    digest = hashlib.sha256("\n".join(class_names).encode())
    for split, pictures in images.items():
        digest.update(f"\n\n{split} {len(pictures)}\n".encode())
        digest.update(labels[split].astype("<i4").tobytes())
        digest.update(pictures.lengths().astype("<i8").tobytes())
        for row in range(0, len(pictures), max(1, len(pictures) // FINGERPRINT_ROWS)):
            try:
                digest.update(hashlib.sha256(pictures.read(row)[0]).digest())
            except OSError:
                digest.update(b"unreadable")
    return digest.hexdigest()
