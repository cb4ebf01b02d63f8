from pathlib import Path

import numpy as np
import pytest

from shards.common.errors import ShardfeedError
from shards.format.index import DTYPES, Index


def index(rows: int, shard: int = 0) -> Index:
    table = [(shard, 512 * i, 100 + i, i % 7, 300, 200, 2**32 - 1 - i) for i in range(rows)]
    return Index.from_rows(table, [f"{i:08d}" for i in range(rows)])


def same(one: Index, other: Index) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in DTYPES)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    index(5).write(tmp_path / "index.parquet")
    read = Index.read(tmp_path / "index.parquet", keys=True)
    assert same(read, index(5))
    assert read.key is not None
    assert read.key.tolist() == [f"{i:08d}" for i in range(5)]


def test_keys_are_read_only_when_asked_for(tmp_path: Path) -> None:
    index(5).write(tmp_path / "index.parquet")
    assert Index.read(tmp_path / "index.parquet").key is None


def test_columns_have_the_types_of_the_contract(tmp_path: Path) -> None:
    index(5).write(tmp_path / "index.parquet")
    read = Index.read(tmp_path / "index.parquet")
    assert {name: getattr(read, name).dtype for name in DTYPES} == {name: np.dtype(d) for name, d in DTYPES.items()}


def test_the_same_rows_give_the_same_file_however_they_were_put_together(tmp_path: Path) -> None:
    whole = Index.concatenate([index(3), index(4, shard=1)])
    Index.concatenate([index(3), index(4, shard=1), index(0)]).write(tmp_path / "parts.parquet")
    whole.write(tmp_path / "whole.parquet")
    assert (tmp_path / "parts.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert whole.shard.tolist() == [0, 0, 0, 1, 1, 1, 1]


def test_an_index_of_nothing_is_an_index(tmp_path: Path) -> None:
    Index.concatenate([]).write(tmp_path / "index.parquet")
    assert len(Index.read(tmp_path / "index.parquet", keys=True)) == 0


def test_columns_of_different_lengths_are_refused() -> None:
    whole = index(3)
    columns = {name: getattr(whole, name) for name in DTYPES}
    with pytest.raises(ValueError, match="column label"):
        Index(**{**columns, "label": whole.label[:2]})


def test_some_rows_are_an_index() -> None:
    part = index(9).rows(slice(3, 5))
    assert (part.offset.tolist(), part.key.tolist() if part.key is not None else None) == (
        [1536, 2048],
        ["00000003", "00000004"],
    )


def test_a_missing_file_and_a_damaged_one_are_named(tmp_path: Path) -> None:
    path = tmp_path / "index.parquet"
    with pytest.raises(ShardfeedError, match=r"index.parquet is missing"):
        Index.read(path)
    path.write_bytes(b"PAR1 but no more")
    with pytest.raises(ShardfeedError, match=r"index.parquet cannot be read"):
        Index.read(path)
