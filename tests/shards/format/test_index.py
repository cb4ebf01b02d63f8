import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from shards.common.errors import ShardfeedError
from shards.format.index import ADVICE, DTYPES, Index
from shards.format.layout import Encoding, sample_key
from shards.format.manifest import ShardInfo
from shards.format.ppm import ppm
from shards.format.tar import Sample, write_shard
from tests.conftest import jpeg, photo


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


def test_further_columns_are_read_when_asked_for_and_concatenated(tmp_path: Path) -> None:
    extra = {"path": pa.array([f"{row}.jpg" for row in range(5)]), "number": pa.array(range(5), pa.int64())}
    dataclasses.replace(index(5), extra=extra).write(tmp_path / "index.parquet")
    assert Index.read(tmp_path / "index.parquet").extra == {}
    read = Index.read(tmp_path / "index.parquet", keys=True, extra=["path", "number"])
    assert read.extra == extra
    assert Index.concatenate([read, read]).extra["number"].to_pylist() == [*range(5), *range(5)]
    with pytest.raises(ShardfeedError, match="cannot be read as an index of samples"):
        Index.read(tmp_path / "index.parquet", extra=["nothing"])


@pytest.mark.parametrize("values", [pa.array(["a"] * 4), pa.array([0.5] * 5), pa.array(["a"] * 4 + [None])])
def test_further_columns_of_other_types_or_with_gaps_are_refused(values: pa.Array) -> None:
    with pytest.raises(ValueError, match="column more must be 5 strings or int64"):
        dataclasses.replace(index(5), extra={"more": values})


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


@pytest.fixture(scope="module", params=["jpeg", "raw"])
def written(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Index, list[ShardInfo], Encoding]:
    """The index of three shards of 3, 3 and 2 samples, as they were written."""
    encoding: Encoding = request.param
    infos, parts = [], []
    for number, rows in enumerate(([0, 1, 2], [3, 4, 5], [6, 7])):
        samples = []
        for row in rows:
            pixels = photo(9 + row, 120 - 3 * row, seed=row)  # sides of one, two and three digits
            data = ppm(pixels) if encoding == "raw" else jpeg(pixels)
            samples.append(Sample(sample_key(row), data, row % 5, pixels.shape[1], pixels.shape[0]))
        info, part = write_shard(tmp_path_factory.mktemp("shards"), "train", number, samples, encoding)
        infos.append(info)
        parts.append(part)
    return Index.concatenate(parts), infos, encoding


def changed(index: Index, column: str, row: int, value: Any) -> Index:
    values = getattr(index, column).copy()
    values[row] = value(values[row]) if callable(value) else value
    return dataclasses.replace(index, **{column: values})


def test_an_index_as_written_passes(written: tuple[Index, list[ShardInfo], Encoding]) -> None:
    index, shards, encoding = written
    index.check("index.parquet", shards, 5, encoding)
    Index.concatenate([]).check("index.parquet", [], 5, encoding)


@pytest.mark.parametrize("row", [0, 4, 7])
@pytest.mark.parametrize(
    ("column", "value", "named"),
    [
        ("label", -1, "label"),
        ("label", 5, "label"),
        ("label", 2**31 - 1, "label"),
        ("shard", -1, "shard"),
        ("shard", 3, "shard"),
        ("shard", lambda shard: (shard + 1) % 3, "shard"),
        ("width", 0, "width"),
        ("width", -7, "width"),
        ("height", 0, "height"),
        ("size", 0, "size"),
        ("size", -1, "size"),
        ("size", 2**31 - 1, ""),
        ("size", lambda size: size + 20 * 512, ""),  # less could hide in the padding of a shard's end
        ("offset", -512, "offset"),
        ("offset", 0, "offset"),
        ("offset", 2**62, "offset"),
        ("offset", 2**63 - 1, "offset"),
        ("offset", lambda offset: offset + 1, "offset"),
        ("offset", lambda offset: offset - 512, "offset"),
    ],
)
def test_a_value_that_cannot_be_is_named_with_its_row_and_column(
    written: tuple[Index, list[ShardInfo], Encoding], row: int, column: str, value: Any, named: str
) -> None:
    index, shards, encoding = written
    wrong = changed(index, column, row, value)
    with pytest.raises(ShardfeedError, match=r"^DIR/index.parquet is damaged \(row \d has \w+ -?\d+, not ") as refused:
        wrong.check("DIR/index.parquet", shards, 5, encoding)
    assert str(refused.value).endswith(ADVICE)
    if named:
        assert f"(row {row} has {named} {getattr(wrong, column)[row]}, not" in str(refused.value)


@pytest.mark.parametrize("column", ["width", "height", "size"])
def test_every_change_of_the_size_of_raw_pixels_is_seen(
    written: tuple[Index, list[ShardInfo], Encoding], column: str
) -> None:
    index, shards, encoding = written
    for row in range(8 if encoding == "raw" else 0):  # a JPEG's length does not follow from its pixels
        for by in (-1, 1):
            with pytest.raises(ShardfeedError, match="PPM of so many pixels"):
                changed(index, column, row, lambda value, by=by: value + by).check("it", shards, 5, "raw")


def test_a_jpeg_has_no_side_beyond_its_header(written: tuple[Index, list[ShardInfo], Encoding]) -> None:
    index, shards, encoding = written
    if encoding == "jpeg":
        with pytest.raises(ShardfeedError, match="row 2 has height 65536, not 1 to 65535"):
            changed(index, "height", 2, 65536).check("it", shards, 5, "jpeg")


def test_rows_beyond_the_manifest_are_counted(written: tuple[Index, list[ShardInfo], Encoding]) -> None:
    index, shards, encoding = written
    with pytest.raises(ShardfeedError, match="it has 7 rows, the manifest says 8 samples"):
        index.rows(slice(0, 7)).check("it", shards, 5, encoding)


def test_a_shorter_shard_than_its_samples_is_seen(written: tuple[Index, list[ShardInfo], Encoding]) -> None:
    index, shards, encoding = written
    short = [*shards[:2], dataclasses.replace(shards[2], bytes=int(index.offset[7] + index.size[7]))]
    with pytest.raises(ShardfeedError, match=r"row 7 has offset \d+, not inside the shard"):
        index.check("it", short, 5, encoding)


def test_the_check_of_a_million_rows_is_quick() -> None:
    rows = 1_000_000
    table = np.arange(rows)
    index = Index(
        shard=(table // 1000).astype(np.int32),
        offset=512 + (table % 1000) * (20 * 512),
        size=np.full(rows, 17 * 512, np.int32),
        label=(table % 1000).astype(np.int32),
        width=np.full(rows, 300, np.int32),
        height=np.full(rows, 256, np.int32),
        crc32=table.astype(np.uint32),
    )
    shards = [ShardInfo(f"train-{number:05d}.tar", 512_000 * 20 + 10_240, 1000, "ab" * 32) for number in range(1000)]
    began = time.perf_counter()
    index.check("it", shards, 1000, "jpeg")
    assert time.perf_counter() - began < 1.0  # 15 ms on an idle machine
