"""Parts of a split: which of its samples, under which labels. All are views: rows of the split's index, no copies.

The parts are the same on every machine: they follow from the index, from fixed arithmetic, or from a file of names.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from shards.common.arguments import as_path, shown, whole_number
from shards.common.errors import UsageError
from shards.common.terminal import counted, some
from shards.sampling.hashing import permutation

Int64Array = npt.NDArray[np.int64]
Int32Array = npt.NDArray[np.int32]

# The stream that chooses the samples of a balanced subset.
SUBSET = 0x5355
# Names that a message lists.
NAMED = 3


@dataclass(frozen=True, eq=False)
class View:
    """What a part shows of a whole split.

    `rows`: rows of the split's index, (n,) in ascending order. `title`: the part in words. `labels`: the classes of
    these samples, (n,), and `class_names`: what these are called; None: those of the whole split.
    """

    rows: Int64Array
    title: str
    labels: Int32Array | None = None
    class_names: tuple[str, ...] | None = None
    held_out: bool = False
    """Whether it is held out of training."""
    divided: str = ""
    """The title of the split of which something was held out, for that part and for the rest."""

    @cached_property
    def identity(self) -> int:
        """A number that is the same for the same samples under the same labels, and differs otherwise; 48 bits."""
        digest = hashlib.sha256(self.rows.astype("<i8").tobytes())
        if self.labels is not None:
            digest.update(self.labels.astype("<i4").tobytes())
        return int.from_bytes(digest.digest()[:6], "little")


def chosen_rows(ids: Any, samples: int) -> Int64Array:
    """The sample ids `ids`, or those where a mask of all samples is true, in ascending order.

    Raises UsageError where they are no ids of `samples` samples, where one comes twice, and where there are none.
    """
    try:
        array = np.asarray(ids)
        if array.dtype == bool and array.shape == (samples,):
            array = np.flatnonzero(array)
        if array.ndim != 1 or (array.dtype.kind not in "iu" and array.size):
            raise ValueError
    except (ValueError, TypeError):
        raise UsageError(
            f"a selection must be sample ids, or a mask of {counted(samples, 'sample')}, not {shown(ids)}"
        ) from None
    rows = np.sort(array).astype(np.int64)
    if not len(rows):
        raise UsageError("a selection must hold a sample: it is empty")
    if rows[0] < 0 or rows[-1] >= samples:
        wrong = rows[0] if rows[0] < 0 else rows[-1]
        raise UsageError(f"there is no sample {wrong}: the ids are 0 to {samples - 1}")
    if (twice := rows[1:][rows[1:] == rows[:-1]]).size:
        raise UsageError(f"the sample {twice[0]} is selected twice: a part holds each sample once")
    return rows


def check_fraction(what: str, value: Any) -> None:
    """Raises UsageError for what is no number between 0 and 1. `what`: which fraction, for the message."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 < value < 1:
        raise UsageError(f"the fraction {what} must lie between 0 and 1, not {shown(value)}")


def balanced_rows(labels: Int32Array, fraction: float) -> Int64Array:
    """A random `fraction` of the samples of each class, but at least one, in ascending order: always the same ones.

    A larger fraction takes the same samples and more. Raises UsageError for a fraction that is not between 0 and 1.
    """
    check_fraction("of a subset", fraction)
    shuffled = permutation(len(labels), 0, SUBSET)
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    counts = np.bincount(labels)
    place = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)  # of each sample within its class
    wanted = np.maximum(1, np.rint(counts * fraction))
    return np.sort(by_class[place < np.repeat(wanted, counts)])


def class_numbers(wanted: Sequence[Any], class_names: Sequence[str]) -> list[int]:
    """The classes with these names or numbers, in ascending order. Raises UsageError for one that there is not."""
    if isinstance(wanted, str) or not isinstance(wanted, Sequence | np.ndarray) or not len(wanted):
        raise UsageError(f"classes must be a list of names or numbers, not {shown(wanted)}")
    names = numbers_by_name(class_names)
    return sorted({_class_number(each, names, class_names) for each in wanted})


def _class_number(wanted: Any, names: Mapping[str, int], class_names: Sequence[str]) -> int:
    """The class with this name or number. Raises UsageError where there is none."""
    if not isinstance(wanted, str):
        return whole_number("the number of a class", wanted, 0, len(class_names) - 1)
    if wanted not in names:
        raise UsageError(f"there is no class {shown(wanted)}: {_some(class_names)}")
    return names[wanted]


def numbers_by_name(class_names: Sequence[str]) -> dict[str, int]:
    """The number of each class by its name and, where no other class has it, by the name's first word: its WNID."""
    first: dict[str, int] = {}
    for number, name in enumerate(class_names):
        word = name.replace(",", " ").replace(":", " ").split(maxsplit=1)[:1]
        for each in word:
            first[each] = -1 if each in first else number
    exact = {name: number for number, name in enumerate(class_names)}
    return {**{word: number for word, number in first.items() if number >= 0}, **exact}


def read_names(path: str | Path) -> list[str]:
    """The lines of a list of names; empty ones, and those that begin with #, are left out.

    Raises UsageError where there is no such file of text, or no name in it.
    """
    place = as_path("a list of names", path)
    if not place.is_file():
        raise UsageError(f"{place} is not a file: give a fraction, such as 0.1, or a file of names, one a line")
    try:
        lines = [line.strip() for line in place.read_text("utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{place} cannot be read as a list of names: {error}") from None
    names = [line for line in lines if line and not line.startswith("#")]
    if not names:
        raise UsageError(f"{place} holds no name: write one a line")
    return names


def read_class_map(path: str | Path) -> dict[str, str]:
    """The new class of each class: a line a class, its name, a tab (or else a space), and the new name.

    Raises UsageError where that cannot be read, or where a class has two new ones.
    """
    classes: dict[str, str] = {}
    for line in read_names(path):
        old, _, new = (part.strip() for part in line.partition("\t" if "\t" in line else " "))
        if not new:
            raise UsageError(f"{path}: {shown(line)} names no new class: write the class, a tab, and the new class")
        if classes.setdefault(old, new) != new:
            raise UsageError(f"{path}: the class {shown(old)} has two new ones, {shown(classes[old])} and {shown(new)}")
    return classes


def rows_of_names(path: str | Path, names: Sequence[str], known: Sequence[npt.NDArray[np.object_]]) -> Int64Array:
    """The samples that these names are of, in ascending order.

    `known`: what samples are called, each (n,) of str; the first array that has the first name is taken. A name fits
    with or without its extension, and with or without its first directories; all of them may be left out, or be others,
    where one sample alone has the name. Raises UsageError for names that no sample has, or several.
    """
    for each in known:
        called = _Called(each, names)
        if called.rows(names[0]):
            break
    else:
        raise UsageError(f"{path}: {shown(names[0])} is neither a class nor a sample of this data set")
    found = {name: called.rows(name) for name in names}
    missing = [name for name, rows in found.items() if not rows]
    if missing:
        raise UsageError(
            f"{path}: {counted(len(missing), 'name')} of {len(found):,} are of no sample of this data set, such as "
            f"{shown(missing[0])}: take them out"
        )
    several = next((name for name, rows in found.items() if len(rows) > 1), None)
    if several is not None:
        such_as = some([shown(called.names[row]) for row in found[several]], 2)
        raise UsageError(
            f"{path}: {shown(several)} is the name of {len(found[several]):,} samples, such as {such_as}: write more "
            "of the names, so that each is of one sample"
        )
    return np.array(sorted({row for rows in found.values() for row in rows}), np.int64)


class _Called:
    """What samples are called, (n,) of str, and which of them a name of `wanted` is of."""

    def __init__(self, names: npt.NDArray[np.object_], wanted: Sequence[str]) -> None:
        self.names = names
        self._wanted = wanted
        self._tables: dict[int, tuple[dict[str, list[int]], ...]] = {}

    def rows(self, name: str) -> list[int]:
        """The rows that `name` fits best: by all its directories if there are such rows, else by its last part."""
        # 0 stands for all directories; tables for each depth, since looking through all rows for each name takes hours.
        for parts in dict.fromkeys((0, name.count("/") + 1, 1)):
            for own, table in product(_forms(name, parts), self._of(parts)):
                if rows := table.get(own):
                    return rows
        return []

    def _of(self, parts: int) -> tuple[dict[str, list[int]], ...]:
        """For each form the rows that a wanted name may mean; with all others they would take gigabytes."""
        if parts not in self._tables:
            wanted = {form for name in self._wanted for form in _forms(name, parts)}
            tables: tuple[dict[str, list[int]], ...] = ({}, {}, {})
            for row, name in enumerate(self.names):
                for table, form in zip(tables, _forms(name, parts), strict=True):
                    if form in wanted:
                        table.setdefault(form, []).append(row)
            self._tables[parts] = tables
        return self._tables[parts]


def _forms(name: str, parts: int) -> tuple[str, str, str]:
    """The last `parts` parts of a name (0: all): as they are, without the last extension, and without all."""
    folders, slash, file = (name if parts == 0 else "/".join(name.split("/")[-parts:])).rpartition("/")
    before = folders + slash
    return before + file, before + (file.rpartition(".")[0] or file), before + file.partition(".")[0]


def stem(name: str) -> str:
    """A file's name without directory and extension."""
    return PurePosixPath(name).name.partition(".")[0]


def mapped_classes(
    new_of: Mapping[str, str] | Mapping[int, str], class_names: Sequence[str]
) -> tuple[npt.NDArray[np.int32], tuple[str, ...]]:
    """The new number of each class, (classes,), -1 for those that have none, and the names of the new classes, sorted.

    Raises UsageError for a class that there is not, and for a new name that is no text.
    """
    numbers = numbers_by_name(class_names)
    for new in new_of.values():
        if not isinstance(new, str):
            raise UsageError(f"the name of a new class must be text, not {shown(new)}")
    names = tuple(sorted(set(new_of.values())))
    table = np.full(len(class_names), -1, np.int32)
    for old, new in new_of.items():
        table[_class_number(old, numbers, class_names)] = names.index(new)
    return table, names


def _some(class_names: Sequence[str]) -> str:
    return f"the data set has {some(class_names, NAMED)}"
