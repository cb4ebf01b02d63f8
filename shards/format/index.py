"""The table of all samples of a split: where each one's image lies, how big it is, what it shows.

Its rows are in shard order and, inside a shard, in the order of the tar; a row's number is the sample's
id everywhere in this project.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from shards.common.atomic import replacing
from shards.common.errors import ShardfeedError

DTYPES = {
    "shard": np.int32,
    "offset": np.int64,
    "size": np.int32,
    "label": np.int32,
    "width": np.int32,
    "height": np.int32,
    "crc32": np.uint32,
}


@dataclass(frozen=True, eq=False)
class Index:
    """Columns of length n, one row a sample.

    `shard` (int32): number of the shard within the split. `offset` (int64): position in the tar of the
    image file's first byte. `size` (int32): length of that file in bytes, header included: it is a JPEG, or in raw
    shards a PPM whose last 3 * width * height bytes are the pixels. `label` (int32): class number. `width`, `height`
    (int32): pixels. `crc32` (uint32): of the file's bytes, as zlib computes it.
    `key` (objects of type str): the sample's name in the tar, or None if it was not asked for.
    """

    shard: npt.NDArray[np.int32]
    offset: npt.NDArray[np.int64]
    size: npt.NDArray[np.int32]
    label: npt.NDArray[np.int32]
    width: npt.NDArray[np.int32]
    height: npt.NDArray[np.int32]
    crc32: npt.NDArray[np.uint32]
    key: npt.NDArray[np.object_] | None = None

    def __post_init__(self) -> None:
        for name, dtype in DTYPES.items():
            column = getattr(self, name)
            if column.dtype != dtype or column.shape != (len(self),):
                raise ValueError(f"column {name} must be {len(self)} values of {np.dtype(dtype)}")
        if self.key is not None and len(self.key) != len(self):
            raise ValueError(f"column key must be {len(self)} values")

    def __len__(self) -> int:
        return len(self.shard)

    def rows(self, part: slice) -> "Index":
        """Some of the rows: views of these columns."""
        columns: dict[str, Any] = {name: getattr(self, name)[part] for name in DTYPES}
        return Index(**columns, key=None if self.key is None else self.key[part])

    @classmethod
    def from_rows(cls, rows: Sequence[tuple[int, int, int, int, int, int, int]], keys: Sequence[str]) -> "Index":
        """Builds the table from rows of (shard, offset, size, label, width, height, crc32) and their keys."""
        table = np.array(rows, dtype=np.int64).reshape(len(rows), len(DTYPES))
        columns = {name: table[:, i].astype(dtype) for i, (name, dtype) in enumerate(DTYPES.items())}
        return cls(**columns, key=np.array(keys, dtype=object))

    @classmethod
    def concatenate(cls, parts: Sequence["Index"]) -> "Index":
        """One table of several, in the order given; it has keys where all parts have them."""
        columns: dict[str, Any] = {
            name: np.concatenate([np.empty(0, dtype), *(getattr(part, name) for part in parts)], dtype=dtype)
            for name, dtype in DTYPES.items()
        }
        keys = [part.key for part in parts if part.key is not None]
        if len(keys) == len(parts):
            columns["key"] = np.concatenate([np.empty(0, object), *keys])
        return cls(**columns)

    def write(self, path: str | Path) -> None:
        """Writes the table as parquet: atomically, synced to disk. Raises ValueError for a table without keys."""
        if self.key is None:
            raise ValueError("an index is written with its keys")
        columns = {name: pa.array(getattr(self, name)) for name in DTYPES}
        table = pa.table({**columns, "key": pa.array(self.key, pa.string())})
        with replacing(Path(path)) as file:
            pq.write_table(table, file, compression="zstd")

    @classmethod
    def read(cls, path: str | Path, keys: bool = False) -> "Index":
        """Reads what `write` wrote, with the `key` column only if `keys`. Raises ShardfeedError if it cannot."""
        try:
            table = pq.read_table(path, columns=[*DTYPES, *(["key"] if keys else [])])
            columns = {name: table.column(name).to_numpy() for name in DTYPES}
            return cls(**columns, key=table.column("key").to_numpy() if keys else None)
        except FileNotFoundError:
            raise ShardfeedError(f"{path} is missing: the data set is not whole, preprocess it again") from None
        except (pa.ArrowException, OSError, ValueError, KeyError) as error:
            reason = str(error).splitlines()[0]
            raise ShardfeedError(f"{path} cannot be read as an index of samples: {reason}") from None
