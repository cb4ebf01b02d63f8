"""Values read alone are Arrow's own, whatever the type, the slice, the nulls, and where they lie."""

import os
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.sources.arrow_file import ArrowFile, Values

KINDS = st.sampled_from([pa.binary(), pa.large_binary()])


def written(path: Path, values: list[bytes | None], kind: pa.DataType) -> ArrowFile:
    table = pa.table({"value": pa.array(values, kind)})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    return ArrowFile(path)


@settings(max_examples=60)
@given(values=st.lists(st.none() | st.binary(max_size=40), min_size=1, max_size=12), kind=KINDS, data=st.data())
def test_values_are_arrows_in_a_file_and_in_memory(
    values: list[bytes | None], kind: pa.DataType, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, len(values) - 1))
    with tempfile.TemporaryDirectory() as root:
        file = written(Path(root) / "table.arrow", values, kind)
        array = file.table.column("value").chunk(0).slice(start)
        for source in (file, None):
            column = Values(array, source)
            assert [column[row] for row in range(len(array))] == values[start:]


def test_strings_are_their_bytes() -> None:
    column = Values(pa.array(["ä", None, ""]), None)
    assert [column[row] for row in range(3)] == ["ä".encode(), None, b""]


def test_a_chunk_of_nothing_but_nulls_has_none() -> None:
    for array in (pa.nulls(3, pa.binary()), pa.array([None, None], pa.string())):
        assert Values(array, None)[1] is None


def test_a_file_that_was_cut_short_is_an_error_and_not_a_signal(tmp_path: Path) -> None:
    path = tmp_path / "table.arrow"
    file = written(path, [bytes(300_000)], pa.binary())
    values = Values(file.table.column("value").chunk(0), file)
    os.truncate(path, 4096)
    with pytest.raises(OSError, match="cut short"):
        values[0]


def test_a_file_that_was_replaced_reads_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "table.arrow"
    file = written(path, [b"before"], pa.binary())
    path.unlink()
    path.write_bytes(b"another" * 1000)
    assert Values(file.table.column("value").chunk(0), file)[0] == b"before"
