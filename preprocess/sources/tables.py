"""Images in tables of the `datasets` library: of the hub, directories of parquet, and what `save_to_disk` wrote.

The library converts parquet to Arrow files in its cache, from which one row can be read without its neighbours.
"""

import bisect
import contextlib
import errno
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from preprocess.sources.arrow_file import ArrowFile, Values
from preprocess.sources.hub import download_folders, load_hub
from preprocess.sources.labels import LabelColumn, can_be_labels, read_labels
from preprocess.sources.parquet import ParquetFile, load, parquet_paths, split_files
from preprocess.sources.source import StoredSource, choose, printable, stored_source
from shards.common.errors import ShardfeedError, UsageError
from shards.common.machine import allow_open_files

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

IMAGE = "image"
SHOWN = 3  # columns in a message


@dataclass(frozen=True, eq=False)
class TableImages:
    """The images of one split: a column of a table of the `datasets` library. It pickles as the path of its files.

    A row is read from its Arrow chunk directly, which is three times as fast as asking the library for it.
    """

    split: str
    dataset: "datasets.Dataset"
    column: str
    # Files that rows name by a path are read only below these directories.
    roots: tuple[Path, ...] = ()

    @cached_property
    def _chunks(self) -> list[tuple[Any, Any, ArrowFile | None]]:
        """Of each chunk of the column: the array of bytes, the array of paths, and the file they are mapped from."""
        paths = [Path(entry["filename"]) for entry in self.dataset.cache_files]
        allow_open_files(2 * len(paths))  # a mapping keeps its file open, too
        files = [ArrowFile(path) for path in paths]
        if sum(file.table.num_rows for file in files) == len(self.dataset):
            return [(*_bytes_and_paths(a), file) for file in files for a in file.table.column(self.column).chunks]
        # The table lies in memory, not in files.
        return [(*_bytes_and_paths(array), None) for array in self.dataset.data.column(self.column).chunks]

    @cached_property
    def _values(self) -> tuple[list[int], list[tuple[Values, Values]]]:
        """The first row of each chunk; and of each chunk its bytes and its paths, both null where the row is."""
        ends = np.cumsum([0, *(len(images) for images, _, _ in self._chunks)])
        return ends[:-1].tolist(), [(Values(images, file), Values(paths, file)) for images, paths, file in self._chunks]

    def __getstate__(self) -> dict[str, Any]:
        return {"split": self.split, "dataset": self.dataset, "column": self.column, "roots": self.roots}

    def __len__(self) -> int:
        return len(self.dataset)

    def lengths(self) -> npt.NDArray[np.int64]:
        """Reads only the offsets of the bytes; of images that the table gives by path, the size of the file."""
        import pyarrow.compute as pc

        parts: list[npt.NDArray[np.int64]] = [np.empty(0, np.int64)]
        for images, paths, _ in self._chunks:
            lengths = pc.fill_null(pc.binary_length(images), -1).to_numpy(zero_copy_only=False).astype(np.int64)
            for row in np.flatnonzero(lengths < 0):
                if path := paths[int(row)].as_py():
                    with contextlib.suppress(OSError):
                        lengths[row] = self._file(path).stat().st_size
            parts.append(lengths)
        return np.concatenate(parts)

    def name(self, row: int) -> str:
        starts, values = self._values
        chunk = bisect.bisect_right(starts, row) - 1
        path = os.fsdecode(values[chunk][1][row - starts[chunk]] or b"")
        return printable(path) or f"{self.split} row {row}"

    def read(self, row: int) -> tuple[bytes, str]:
        starts, values = self._values
        chunk = bisect.bisect_right(starts, row) - 1
        images, paths = values[chunk]
        data, name = images[row - starts[chunk]], paths[row - starts[chunk]]
        path = os.fsdecode(name or b"")
        if data is None:
            data = self._file(path).read_bytes() if path else b""
        return data, printable(path) or f"{self.split} row {row}"

    def _file(self, path: str) -> Path:
        """The file that a row names. Raises OSError for a path out of the source: a table may come from anyone."""
        for root in self.roots:
            file = (root / path).resolve()
            if file.is_relative_to(root.resolve()):
                if file.exists() and not file.is_file():
                    raise PermissionError(errno.EACCES, "it is no regular file", path)
                return file
        raise PermissionError(errno.EACCES, "it does not lie below the source", path)

    def table(self) -> "datasets.Dataset":
        import datasets

        images = self.dataset.cast_column(self.column, datasets.Image())
        return images if self.column == IMAGE else images.rename_column(self.column, IMAGE)


def _bytes_and_paths(array: Any) -> tuple[Any, Any]:
    """The bytes and the paths of a chunk of images; nulls where the column holds only the other."""
    import pyarrow as pa

    nulls = pa.nulls(len(array), pa.binary())
    if pa.types.is_struct(array.type):
        # Unlike array.field, array.flatten gives null where the row is null.
        fields = {field.name: values for field, values in zip(array.type, array.flatten(), strict=True)}
        paths = fields.get("path", nulls)
        return fields["bytes"], nulls if pa.types.is_null(paths.type) else paths
    is_path = pa.types.is_string(array.type) or pa.types.is_large_string(array.type)
    return (nulls, array) if is_path else (array, nulls)


def is_table(path: Path) -> bool:
    """Whether a directory holds parquet files, or what `save_to_disk` wrote."""
    return _is_saved(path) or bool(parquet_paths(path))


def open_tables(
    name: str,
    path: Path | None,
    splits: Sequence[str] | None,
    image_column: str,
    label_column: str,
    columns: Sequence[str] = (),
) -> "tuple[StoredSource, dict[str, dict[str, pa.ChunkedArray]]]":
    """Opens the tables in a local directory, or on the hub where `path` is None. Returns the source, and the `columns`.

    The label column may hold ClassLabels, strings (their sorted values become the classes) or numbers (classes
    "0", "1", ... up to the highest). Raises UsageError for splits and columns that are missing or of another type.
    """
    tables, files = _load(name, path, splits)
    roots = download_folders(name) if path is None else (path.absolute(),)
    chosen = list(tables) if splits is None else choose(name, list(tables), splits)
    images: dict[str, TableImages] = {}
    labels: dict[str, LabelColumn] = {}
    further: dict[str, dict[str, pa.ChunkedArray]] = {}
    for split in chosen:
        table = tables[split]
        images_in, labels_in = _columns_of_images(table), _columns_of_labels(table)
        named = [
            ("--image-column", image_column, images_in),
            ("--label-column", label_column, labels_in),
            *(("--keep", each, table.column_names) for each in columns),
        ]
        for option, column, fitting in named:
            if column not in table.column_names:
                there = ", ".join(table.column_names)
                raise UsageError(f"{name} has no column {column}: it has {there}; {_give(option, fitting)}")
        if not _is_image(table.data.schema.field(image_column).type):
            feature = table.features[image_column]
            raise UsageError(
                f"column {image_column} of {name} holds {feature}, not images; {_give('--image-column', images_in)}"
            )
        label_type = table.data.schema.field(label_column).type
        if not can_be_labels(label_type):
            raise UsageError(
                f"column {label_column} of {name} holds {label_type}, not labels; {_give('--label-column', labels_in)}"
            )
        images[split] = TableImages(split, table.select_columns([image_column]), image_column, roots)
        if split in files:
            parts = [(file.rows, file.class_names.get(label_column)) for file in files[split] if file.rows]
        else:
            names = getattr(table.features[label_column], "names", None)
            parts = [(len(table), None if names is None else tuple(names))]
        labels[split] = LabelColumn(_column(table, label_column), parts)
        further[split] = {column: _column(table, column) for column in columns}
    class_names, numbers = read_labels(name, label_column, labels)
    return stored_source(name, class_names, images, numbers, hidden_allowed=splits is None), further


def _column(table: "datasets.Dataset", column: str) -> "pa.ChunkedArray":
    return table.select_columns([column]).with_format("arrow")[:].column(0)


def _columns_of_images(table: "datasets.Dataset") -> list[str]:
    """The columns that seem to hold images: those that say so, else all that can be."""
    import datasets

    said = [name for name, feature in table.features.items() if isinstance(feature, datasets.Image)]
    return said or [field.name for field in table.data.schema if _is_image(field.type)]


def _columns_of_labels(table: "datasets.Dataset") -> list[str]:
    """The columns that seem to hold labels: ClassLabels, else all that can be."""
    import datasets

    said = [name for name, feature in table.features.items() if isinstance(feature, datasets.ClassLabel)]
    return said or [field.name for field in table.data.schema if can_be_labels(field.type)]


def _give(option: str, columns: Sequence[str]) -> str:
    """What to give for a column that is wrong: the whole option, where columns are there that fit."""
    if not columns:
        return f"none of them seems to fit; name the right one with {option} NAME"
    return f"give {' or '.join(f'{option} {shlex.quote(column)}' for column in columns[:SHOWN])}"


def _load(
    name: str, path: Path | None, splits: Sequence[str] | None
) -> "tuple[dict[str, datasets.Dataset], dict[str, list[ParquetFile]]]":
    """The table of each split, and the files of those that are parquet. `splits`: what a hub's data set needs."""
    import datasets

    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    if path is None:
        return load_hub(name, splits), {}
    try:
        if not _is_saved(path):
            files = split_files(path)
            return load(files), files
        saved = datasets.load_from_disk(str(path))
    except UsageError as error:
        raise UsageError(f"{name} cannot be used: {error}") from None
    except Exception as error:
        # Any kind of error may come out of the library for damaged files.
        reason = " ".join(str(error.__cause__ or error).split())
        raise ShardfeedError(f"{name} cannot be read: {type(error).__name__}: {reason}") from error
    return ({str(saved.split or "train"): saved} if isinstance(saved, datasets.Dataset) else dict(saved)), {}


def _is_saved(path: Path) -> bool:
    return (path / "dataset_dict.json").is_file() or (path / "state.json").is_file()


def _is_image(kind: Any) -> bool:
    """Whether a column of this type holds images: their bytes, their paths, or both."""
    import pyarrow as pa

    def data(kind: Any) -> bool:
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

    def path(kind: Any) -> bool:
        return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))

    if not pa.types.is_struct(kind):
        return data(kind) or path(kind)
    fields = {field.name: field.type for field in kind}
    paths = fields.get("path", pa.null())
    return "bytes" in fields and data(fields["bytes"]) and (path(paths) or pa.types.is_null(paths))
