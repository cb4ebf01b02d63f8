"""Columns of a source that the index of the shards is to have too: `--keep COLUMN`.

Every source that is stored has `path`, the name of the image as in rejects.jsonl, and `class`, the name or WNID of its
class. Tables have their other columns, tars of WebDataset what their json files say. Values are strings or integers.
"""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from preprocess.sources.source import StoredSource, printable
from shards.common.errors import UsageError
from shards.format.index import DTYPES
from shards.format.layout import class_id

PATH, CLASS = "path", "class"
OF_EVERY_SOURCE = (PATH, CLASS)
RESERVED = (*DTYPES, "key")
# The values of columns of each split that a source has besides, by the column's name.
Columns = Mapping[str, Mapping[str, Sequence[Any] | pa.ChunkedArray]]


def keeping(source: StoredSource, wanted: Sequence[str], there: Columns) -> StoredSource:
    """The source with the `wanted` columns. Its fingerprint then covers their values.

    `there`: those that it has besides `path` and `class`. Raises UsageError for a column that does not exist, has a
    name of the index's own, or holds anything else than strings or integers.
    """
    wanted = tuple(dict.fromkeys(wanted))
    if not wanted:
        return source
    kept: dict[str, dict[str, pa.Array]] = {split: {} for split in source.splits}
    for column in wanted:
        if column in RESERVED or not column.isprintable() or not column:
            raise UsageError(f"--keep {column}: the index has a column of that name already")
        for split in source.splits:
            if column not in (*OF_EVERY_SOURCE, *there.get(split, {})):
                raise UsageError(f"{source.name} has no column {column}: it has {' and '.join(OF_EVERY_SOURCE)}")
            where = f"column {column} in split {split} of {source.name}"
            kept[split][column] = _checked(where, _values(source, split, column, there.get(split, {})))
        if len({kept[split][column].type for split in source.splits}) > 1:
            raise UsageError(f"column {column} of {source.name} holds strings in one split and integers in another")
    digest = hashlib.sha256(source.fingerprint.encode())
    for split, columns in kept.items():
        for column, values in columns.items():
            digest.update(f"\n{split} {column} {values.type}\n".encode())
            for buffer in values.buffers()[1:]:
                digest.update(buffer)
    return dataclasses.replace(source, kept=kept, fingerprint=digest.hexdigest())


def _values(
    source: StoredSource, split: str, column: str, there: Mapping[str, Sequence[Any] | pa.ChunkedArray]
) -> Sequence[Any] | pa.ChunkedArray:
    if column == PATH:
        return [source.images[split].name(row) for row in range(source.num_rows(split))]
    if column == CLASS:
        classes = pa.array([class_id(name) for name in source.class_names], pa.string())
        return pa.chunked_array([classes.take(pa.array(source.labels[split]))])
    return there[column]


def _checked(where: str, values: Sequence[Any] | pa.ChunkedArray) -> pa.Array:
    """The values as one array of strings or int64, without nulls. Raises UsageError for any others."""
    if not isinstance(values, pa.ChunkedArray):
        kinds = {type(value) for value in values} - {type(None)}
        if not kinds <= {str} and not kinds <= {int}:
            raise UsageError(f"{where} holds {' and '.join(sorted(kind.__name__ for kind in kinds))}, {_ALLOWED}")
        try:
            text = [printable(value) if isinstance(value, str) else value for value in values]
            values = pa.chunked_array([pa.array(text, pa.string() if kinds <= {str} else pa.int64())])
        except OverflowError:
            raise UsageError(f"{where} holds a number above 2^63") from None
    kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
    string = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    if not (string or pa.types.is_integer(kind)):
        raise UsageError(f"{where} holds {kind}, {_ALLOWED}")
    if values.null_count:
        row = pc.index(pc.is_null(values), True).as_py()
        raise UsageError(f"{where} has no value in {values.null_count:,} of {len(values):,} rows, such as row {row}")
    try:
        found = values.cast(kind).cast(pa.string() if string else pa.int64())
    except pa.ArrowInvalid:
        raise UsageError(f"{where} holds a number above 2^63, or more text than 2 GB") from None
    # One array with buffers of its own, whatever the chunks were: the fingerprint covers these.
    return pa.concat_arrays([pa.array([], found.type), *found.chunks])


_ALLOWED = "and only strings or integers can be kept"
