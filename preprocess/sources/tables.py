"""Images in tables of the `datasets` library: the hub, directories of parquet, what `save_to_disk` wrote.

The library keeps parquet as memory-mapped Arrow in its cache, from which one row can be read without its
neighbours; `Image(decode=False)` gives the encoded bytes.
"""

import bisect
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from preprocess.sources.chunk import Values
from preprocess.sources.hub import load_hub
from preprocess.sources.mapped import mappings, read_at_random, release
from preprocess.sources.source import HIDDEN_LABEL, StoredSource, choose, stored_source
from shards.common.errors import ShardfeedError, UsageError

if TYPE_CHECKING:
    import datasets

IMAGE = "image"
ARROW = ".arrow"


@dataclass(frozen=True, eq=False)
class TableImages:
    """The image column of one split, under the name "image" and not decoding. It pickles as the path of its files.

    A row is read from its Arrow chunk directly, which is three times as fast as asking the `datasets` library for it.
    """

    split: str
    column: "datasets.Dataset"

    @cached_property
    def _chunks(self) -> tuple[list[int], list[tuple[Values, Values]]]:
        """The first row of each chunk of the table; and of each its bytes and its paths, null where the row is."""
        files = mappings(ARROW)
        starts: list[int] = []
        fields: list[tuple[Values, Values]] = []
        row = 0
        for images, paths in self._columns():
            starts.append(row)
            fields.append((Values(images, files), Values(paths, files)))
            row += len(images)
        return starts, fields

    def _columns(self) -> "Iterator[tuple[Any, Any]]":
        for chunk in self.column.data.column(IMAGE).chunks:
            columns = chunk.flatten()
            yield columns[chunk.type.get_field_index("bytes")], columns[chunk.type.get_field_index("path")]

    def __getstate__(self) -> dict[str, Any]:
        return {"split": self.split, "column": self.column}

    def __len__(self) -> int:
        return len(self.column)

    def lengths(self) -> npt.NDArray[np.int64]:
        """Reads the offsets of the bytes only; the lengths of files that the table merely names from the disk."""
        import pyarrow.compute as pc

        read_at_random(ARROW)
        parts: list[npt.NDArray[np.int64]] = [np.empty(0, np.int64)]
        for images, paths in self._columns():
            sizes = pc.binary_length(images)
            lengths = pc.fill_null(sizes, -1).to_numpy(zero_copy_only=False).astype(np.int64)
            for row in np.flatnonzero(lengths < 0):
                path = paths[int(row)].as_py()
                if path is not None and Path(path).is_file():
                    lengths[row] = Path(path).stat().st_size
            parts.append(lengths)
        release(ARROW)
        return np.concatenate(parts)

    def read(self, row: int) -> tuple[bytes, str]:
        starts, fields = self._chunks
        chunk = bisect.bisect_right(starts, row) - 1
        images, paths = fields[chunk]
        data, name = images[row - starts[chunk]], paths[row - starts[chunk]]
        path = os.fsdecode(name or b"")
        if data is None:
            data = Path(path).read_bytes() if path else b""
        return data, path or f"{self.split} row {row}"

    def table(self) -> "datasets.Dataset":
        import datasets

        return self.column.cast_column(IMAGE, datasets.Image())


def is_table(path: Path) -> bool:
    """Whether a directory holds a table: parquet files, or what `save_to_disk` wrote."""
    return _is_saved(path) or bool(_parquet_files(path))


def open_tables(
    name: str, path: Path | None, splits: Sequence[str] | None, image_column: str, label_column: str
) -> StoredSource:
    """Opens the tables in a local directory, or on the hub where `path` is None.

    The label column may hold ClassLabels, strings (their sorted values become the classes) or numbers (classes
    "0", "1", ... up to the highest). Raises UsageError for missing splits and columns and for unfit ones.
    """
    tables = _load(name, path)
    chosen = list(tables) if splits is None else choose(name, list(tables), splits)
    columns: dict[str, TableImages] = {}
    values: dict[str, Any] = {}
    for split in chosen:
        for option, column in (("--image-column", image_column), ("--label-column", label_column)):
            if column not in tables[split].column_names:
                there = ", ".join(tables[split].column_names)
                raise UsageError(f"{name} has no column {column}: it has {there}; name the right one with {option}")
        columns[split] = TableImages(split, _image_column(name, tables[split], image_column))
        values[split] = tables[split].select_columns([label_column]).with_format("arrow")[:].column(0)
    class_names, labels = _classes(name, tables[chosen[0]].features[label_column], label_column, values)
    return stored_source(name, class_names, columns, labels, hidden_allowed=splits is None)


def _load(name: str, path: Path | None) -> "dict[str, datasets.Dataset]":
    import datasets

    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    if path is None:
        return load_hub(name)
    saved: datasets.Dataset | datasets.DatasetDict
    try:
        if _is_saved(path):
            saved = datasets.load_from_disk(str(path))
        else:
            saved = datasets.load_dataset("parquet", data_files=_parquet_files(path))
    except Exception as error:
        # The set of errors that damaged files raise in there is open.
        reason = " ".join(str(error.__cause__ or error).split())
        raise ShardfeedError(f"{name} cannot be read: {type(error).__name__}: {reason}") from error
    if isinstance(saved, datasets.Dataset):
        return {str(saved.split or "train"): saved}
    splits: dict[str, datasets.Dataset] = dict(saved)
    return splits


def _is_saved(path: Path) -> bool:
    return (path / "dataset_dict.json").is_file() or (path / "state.json").is_file()


def _parquet_files(path: Path) -> dict[str, list[str]]:
    """The parquet files of each split: the split is what stands before the first "-" of a file's name."""
    files: dict[str, list[str]] = {}
    for file in sorted((path / "data").glob("*.parquet")) or sorted(path.glob("*.parquet")):
        files.setdefault(file.stem.split("-")[0], []).append(str(file))
    return files


def _image_column(name: str, table: "datasets.Dataset", column: str) -> "datasets.Dataset":
    import datasets

    feature = table.features[column]
    plain = isinstance(feature, datasets.Value) and feature.dtype in ("binary", "large_binary", "string")
    if not plain and not isinstance(feature, datasets.Image):
        raise UsageError(f"column {column} of {name} holds {feature}, not images: name theirs with --image-column")
    only = table.select_columns([column]).cast_column(column, datasets.Image(decode=False))
    return only if column == IMAGE else only.rename_column(column, IMAGE)


def _classes(
    name: str, feature: Any, column: str, values: Mapping[str, Any]
) -> tuple[tuple[str, ...], dict[str, npt.NDArray[np.int64]]]:
    """Class names and, by split, labels (n,): class numbers, HIDDEN_LABEL where the table has none."""
    import datasets
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = next(iter(values.values())).type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        words = sorted({word for split in values.values() for word in pc.unique(split).to_pylist() if word is not None})
        numbers = {split: pc.index_in(column, pa.array(words, kind)) for split, column in values.items()}
        names = tuple(words)
    elif pa.types.is_integer(kind):
        numbers = dict(values)
        names = ()
    else:
        raise UsageError(f"column {column} of {name} holds {kind}, not labels: name theirs with --label-column")
    labels = {
        split: pc.fill_null(split_numbers, HIDDEN_LABEL).to_numpy().astype(np.int64)
        for split, split_numbers in numbers.items()
    }
    if isinstance(feature, datasets.ClassLabel):
        names = tuple(feature.names)
    elif not names:
        names = tuple(
            str(i) for i in range(1 + max((int(part.max()) for part in labels.values() if len(part)), default=-1))
        )
    return names, labels
