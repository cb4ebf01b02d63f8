"""Values of Arrow chunks read alone are Arrow's own, whatever the type, the slice, the nulls, and where they lie."""

import tempfile
from pathlib import Path

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.sources.chunk import Values
from preprocess.sources.mapped import mappings


@settings(max_examples=60)
@given(
    values=st.lists(st.none() | st.binary(max_size=40), min_size=1, max_size=12),
    kind=st.sampled_from([pa.binary(), pa.large_binary()]),
    data=st.data(),
)
def test_values_are_arrows_mapped_or_not(values: list[bytes | None], kind: pa.DataType, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(values) - 1))
    with tempfile.TemporaryDirectory() as root:
        path = Path(root) / "table.arrow"
        table = pa.table({"value": pa.array(values, kind)})
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
        with pa.memory_map(str(path)) as mapped:
            array = pa.ipc.open_stream(mapped).read_all().column("value").chunk(0).slice(start)
            for files in (mappings(".arrow"), []):
                column = Values(array, files)
                assert [column[row] for row in range(len(array))] == values[start:]
            del array, column


def test_strings_are_their_bytes() -> None:
    column = Values(pa.array(["ä", None, ""]), [])
    assert [column[row] for row in range(3)] == ["ä".encode(), None, b""]


def test_a_chunk_of_nothing_but_nulls_has_none() -> None:
    for array in (pa.nulls(3, pa.binary()), pa.array([None, None], pa.string())):
        assert Values(array, [])[1] is None
