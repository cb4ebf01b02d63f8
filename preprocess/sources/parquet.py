"""Directories of parquet files, which the `datasets` library converts to Arrow files in its cache."""

import hashlib
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from preprocess.sources.room import check_arrow_room
from shards.common.errors import UsageError
from shards.format.index import DTYPES
from shards.format.layout import INDEX

if TYPE_CHECKING:
    import datasets


@dataclass(frozen=True)
class ParquetFile:
    """A parquet file and what its footer says. `class_names`: those of each ClassLabel column, by column."""

    path: Path
    rows: int
    class_names: Mapping[str, tuple[str, ...]]
    key: str


def parquet_paths(root: Path) -> list[Path]:
    """The parquet files in ROOT/data, in ROOT, or in the only other folder of ROOT that holds some; indices are none.

    Raises UsageError where several folders do: the hub keeps a data set's configurations so.
    """
    for folder in (root / "data", root):
        if paths := _tables(folder.glob("*.parquet")):
            return paths
    folders = sorted({path.parent for path in _tables(root.glob("*/*.parquet"))})
    if len(folders) > 1:
        names = ", ".join(folder.name for folder in folders)
        raise UsageError(f"{root} holds parquet files in several folders ({names}): give one of these folders")
    return _tables(folders[0].glob("*.parquet")) if folders else []


def _tables(paths: Iterable[Path]) -> list[Path]:
    """The files, in order, without the index.parquet of shards, of ours or of tars of others: it holds no image."""
    return sorted(path for path in paths if path.name != INDEX or not _is_index(path))


def _is_index(path: Path) -> bool:
    try:
        return {*DTYPES} <= {*pq.read_schema(path).names}
    except (pa.ArrowException, OSError):
        return False  # what is wrong with it is said when it is read


def split_files(root: Path) -> dict[str, list[ParquetFile]]:
    """The parquet files of each split: the part of a file's name before its first "-"."""
    files: dict[str, list[ParquetFile]] = {}
    for path in parquet_paths(root):
        files.setdefault(path.stem.split("-")[0], []).append(_read_footer(path))
    return files


def load(files: Mapping[str, Sequence[ParquetFile]]) -> "dict[str, datasets.Dataset]":
    """Converts the files to Arrow files, or finds these in the cache of the `datasets` library.

    Splits without rows are left out, with a line on stderr. Raises UsageError where all are.
    """
    import datasets

    # The library fails on files without rows.
    names = {split: [str(file.path) for file in some if file.rows] for split, some in files.items()}
    for split in [split for split, some in names.items() if not some]:
        print(f"{files[split][0].path.parent}: leaving out split {split}: it has no rows", file=sys.stderr)
        del names[split]
    if not names:
        raise UsageError("its parquet files have no rows")
    key = hashlib.sha256("".join(file.key for some in files.values() for file in some).encode()).hexdigest()
    # The library's cache goes by the names of the files and the times when they were changed, which a copy may keep.
    # The description is part of its key, too.
    builder = datasets.load_dataset_builder("parquet", data_files=names, description=key)
    if not Path(builder.cache_dir, datasets.config.DATASET_INFO_FILENAME).is_file():
        paths = [file.path for some in files.values() for file in some]
        check_arrow_room(str(paths[0].parent), paths)
    builder.download_and_prepare()
    return dict(builder.as_dataset())


def _read_footer(path: Path) -> ParquetFile:
    with path.open("rb") as file:
        metadata = pq.read_metadata(file)
        file.seek(-8, 2)
        length = int.from_bytes(file.read(4), "little")
        file.seek(-8 - length, 2)
        footer = hashlib.file_digest(file, "sha256").hexdigest()
    status = path.stat()
    key = f"{status.st_size} {status.st_ctime_ns} {footer}\n"
    return ParquetFile(path, metadata.num_rows, _class_names(metadata.schema.to_arrow_schema().metadata or {}), key)


def _class_names(metadata: Mapping[bytes, bytes]) -> dict[str, tuple[str, ...]]:
    """The names of each column of ClassLabels, from what the `datasets` library writes into a footer."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
        return {name: tuple(map(str, each["names"])) for name, each in features.items() if each.get("names")}
    except (ValueError, AttributeError, TypeError):
        return {}
