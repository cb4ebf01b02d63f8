"""Class names and class numbers from the label column of tables, the same names for all splits."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from preprocess.sources.source import HIDDEN_LABEL
from shards.common.errors import UsageError
from shards.common.terminal import some

Labels = npt.NDArray[np.int64]

# Plain numbers above this are taken for names, not for class numbers, and so many different ones are no classes.
MAX_CLASSES = 1_000_000


@dataclass(frozen=True)
class LabelColumn:
    """The labels of one split. `parts`: runs of rows and the class names of their ClassLabels, None without names."""

    values: pa.ChunkedArray
    parts: Sequence[tuple[int, tuple[str, ...] | None]]


def read_labels(
    name: str, column: str, columns: Mapping[str, LabelColumn]
) -> tuple[tuple[str, ...], dict[str, Labels]]:
    """The class names, and the labels of each split, (n,): class numbers, HIDDEN_LABEL where the table has none.

    ClassLabels are mapped by their names, strings are numbered in alphabetical order, numbers stand for themselves.
    The columns are of types that `can_be_labels` takes. Raises UsageError for splits or files whose labels do not go
    together.
    """
    values = {split: _plain(name, column, each.values) for split, each in columns.items()}
    named = {names for each in columns.values() for _, names in each.parts}
    if len({pa.types.is_string(each.type) for each in values.values()}) > 1 or (None in named and len(named) > 1):
        raise UsageError(
            f"column {column} of {name} holds class names in some files and plain labels in others: give splits that "
            "go together with --splits, or write all files alike"
        )
    if None not in named:
        return _by_name(name, {split: (values[split], each.parts) for split, each in columns.items()})
    if pa.types.is_string(next(iter(values.values())).type):
        words = sorted({word for each in values.values() for word in pc.unique(each).to_pylist() if word is not None})
        return tuple(words), {split: _numbers(pc.index_in(each, pa.array(words))) for split, each in values.items()}
    return plain_numbers(name, column, {split: _numbers(each) for split, each in values.items()})


def union(name: str, classes: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """All class names: those of the first split, then the others. Prints to stderr which classes a split lacks."""
    names = tuple(dict.fromkeys(each for own in classes.values() for each in own))
    for split, own in classes.items():
        if lacking := [each for each in names if each not in set(own)]:
            print(
                f"{name}: split {split} lacks {len(lacking):,} of {len(names):,} classes: {some(lacking, 5)}",
                file=sys.stderr,
            )
    return names


def can_be_labels(kind: pa.DataType) -> bool:
    """Whether a column of this type can hold labels: strings or whole numbers."""
    kind = _inner(kind)
    return bool(pa.types.is_integer(kind)) or _is_text(kind)


def _inner(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _plain(name: str, column: str, values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Strings or int64. Raises UsageError for numbers that do not fit."""
    kind = _inner(values.type)
    if _is_text(kind):
        return values.cast(kind).cast(pa.string())
    try:
        return values.cast(kind).cast(pa.int64())
    except pa.ArrowInvalid:
        raise UsageError(f"column {column} of {name} holds numbers above 2^63, which are no labels") from None


def _numbers(values: pa.ChunkedArray) -> Labels:
    labels: Labels = pc.fill_null(values.cast(pa.int64()), HIDDEN_LABEL).to_numpy().astype(np.int64)
    return labels


def _by_name(
    name: str, columns: Mapping[str, tuple[pa.ChunkedArray, Sequence[tuple[int, tuple[str, ...] | None]]]]
) -> tuple[tuple[str, ...], dict[str, Labels]]:
    classes: dict[str, tuple[str, ...]] = {}
    for split, (_, parts) in columns.items():
        for _, names in parts:
            if len(set(names or ())) < len(names or ()):
                raise UsageError(f"split {split} of {name} has two classes of the same name")
        classes[split] = tuple(dict.fromkeys(each for _, names in parts for each in names or ()))
    names = union(name, classes)
    labels = {}
    for split, (values, parts) in columns.items():
        mapped = _numbers(values)
        start = 0
        for rows, own in parts:
            mapped[start : start + rows] = _mapped(mapped[start : start + rows], own or (), names)
            start += rows
        labels[split] = mapped
    return names, labels


def _mapped(labels: Labels, own: tuple[str, ...], names: tuple[str, ...]) -> Labels:
    """Class numbers of `own` as class numbers of `names`; numbers out of range stay so."""
    if own == names:
        return labels
    places = {each: place for place, each in enumerate(names)}
    numbers = np.array([places[each] for each in own], np.int64)
    known = (labels >= 0) & (labels < len(own))
    mapped = np.where(labels < 0, labels, np.maximum(labels, len(names)))
    mapped[known] = numbers[labels[known]]
    return mapped


def plain_numbers(name: str, column: str, labels: dict[str, Labels]) -> tuple[tuple[str, ...], dict[str, Labels]]:
    """Class names of labels that are numbers: the numbers up to the highest; where they are no classes, in order anew.

    Returns them and the class numbers. Raises UsageError where there are too many, or negative ones.
    """
    highest = max((int(each.max()) for each in labels.values() if len(each)), default=HIDDEN_LABEL)
    if highest < MAX_CLASSES:
        return tuple(map(str, range(highest + 1))), labels
    values = np.unique(np.concatenate(list(labels.values())))
    values = values[values != HIDDEN_LABEL]
    if len(values) > MAX_CLASSES or values[0] < 0:
        raise UsageError(f"column {column} of {name} holds {len(values):,} different numbers, not labels")
    print(f"{name}: labels up to {highest:,} are numbered anew, in order: {len(values):,} classes", file=sys.stderr)
    names = tuple(map(str, values.tolist()))
    return names, {
        split: np.where(each == HIDDEN_LABEL, HIDDEN_LABEL, np.searchsorted(values, each))
        for split, each in labels.items()
    }
