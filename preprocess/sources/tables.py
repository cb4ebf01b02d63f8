"""Images in tables of the `datasets` library: of the hub, directories of parquet, and what `save_to_disk` wrote.

The library converts parquet to Arrow files in its cache, from which one row can be read without its neighbours.
"""

import bisect
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from preprocess.sources.arrow_file import ArrowFile, Values
from preprocess.sources.hub import load_hub
from preprocess.sources.source import HIDDEN_LABEL, StoredSource, choose, stored_source
from shards.common.errors import ShardfeedError, UsageError
from shards.common.machine import allow_open_files

if TYPE_CHECKING:
    import datasets

IMAGE = "image"


@dataclass(frozen=True, eq=False)
class TableImages:
    """The images of one split: a column of a table of the `datasets` library. It pickles as the path of its files.

    A row is read from its Arrow chunk directly, which is three times as fast as asking the library for it.
    """

    split: str
    dataset: "datasets.Dataset"
    column: str

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
        return {"split": self.split, "dataset": self.dataset, "column": self.column}

    def __len__(self) -> int:
        return len(self.dataset)

    def lengths(self) -> npt.NDArray[np.int64]:
        """Reads only the offsets of the bytes; of images that the table gives by path, the size of the file."""
        import pyarrow.compute as pc

        parts: list[npt.NDArray[np.int64]] = [np.empty(0, np.int64)]
        for images, paths, _ in self._chunks:
            lengths = pc.fill_null(pc.binary_length(images), -1).to_numpy(zero_copy_only=False).astype(np.int64)
            for row in np.flatnonzero(lengths < 0):
                path = paths[int(row)].as_py()
                if path is not None and Path(path).is_file():
                    lengths[row] = Path(path).stat().st_size
            parts.append(lengths)
        return np.concatenate(parts)

    def read(self, row: int) -> tuple[bytes, str]:
        starts, values = self._values
        chunk = bisect.bisect_right(starts, row) - 1
        images, paths = values[chunk]
        data, name = images[row - starts[chunk]], paths[row - starts[chunk]]
        path = os.fsdecode(name or b"")
        if data is None:
            data = Path(path).read_bytes() if path else b""
        return data, path or f"{self.split} row {row}"

    def table(self) -> "datasets.Dataset":
        import datasets

        images = self.dataset.cast_column(self.column, datasets.Image())
        return images if self.column == IMAGE else images.rename_column(self.column, IMAGE)


def _bytes_and_paths(array: Any) -> tuple[Any, Any]:
    """The bytes and the paths of a chunk of images; nulls where the column holds only the other."""
    import pyarrow as pa

    if pa.types.is_struct(array.type):
        fields = array.flatten()  # unlike array.field, this gives null where the row is null
        return fields[array.type.get_field_index("bytes")], fields[array.type.get_field_index("path")]
    nulls = pa.nulls(len(array), pa.binary())
    return (nulls, array) if pa.types.is_string(array.type) else (array, nulls)


def is_table(path: Path) -> bool:
    """Whether a directory holds parquet files, or what `save_to_disk` wrote."""
    return _is_saved(path) or bool(_parquet_files(path))


def open_tables(
    name: str, path: Path | None, splits: Sequence[str] | None, image_column: str, label_column: str
) -> StoredSource:
    """Opens the tables in a local directory, or on the hub where `path` is None.

    The label column may hold ClassLabels, strings (their sorted values become the classes) or numbers (classes
    "0", "1", ... up to the highest). Raises UsageError for splits and columns that are missing or of another type.
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
        _check_image_column(name, tables[split], image_column)
        columns[split] = TableImages(split, tables[split].select_columns([image_column]), image_column)
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
        # Any kind of error may come out of the library for damaged files.
        reason = " ".join(str(error.__cause__ or error).split())
        raise ShardfeedError(f"{name} cannot be read: {type(error).__name__}: {reason}") from error
    if isinstance(saved, datasets.Dataset):
        return {str(saved.split or "train"): saved}
    splits: dict[str, datasets.Dataset] = dict(saved)
    return splits


def _is_saved(path: Path) -> bool:
    return (path / "dataset_dict.json").is_file() or (path / "state.json").is_file()


def _parquet_files(path: Path) -> dict[str, list[str]]:
    """The parquet files of each split: the part of a file's name before its first "-"."""
    files: dict[str, list[str]] = {}
    for file in sorted((path / "data").glob("*.parquet")) or sorted(path.glob("*.parquet")):
        files.setdefault(file.stem.split("-")[0], []).append(str(file))
    return files


def _check_image_column(name: str, table: "datasets.Dataset", column: str) -> None:
    import datasets

    feature = table.features[column]
    plain = isinstance(feature, datasets.Value) and feature.dtype in ("binary", "large_binary", "string")
    if not plain and not isinstance(feature, datasets.Image):
        raise UsageError(f"column {column} of {name} holds {feature}, not images: name theirs with --image-column")


def _classes(
    name: str, feature: Any, column: str, values: Mapping[str, Any]
) -> tuple[tuple[str, ...], dict[str, npt.NDArray[np.int64]]]:
    """The class names, and the labels of each split, (n,): class numbers, HIDDEN_LABEL where the table has none."""
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
