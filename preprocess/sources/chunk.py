"""The values of one chunk of an Arrow table, each read alone.

Asking Arrow for a value copies it out of the mapping, page fault by page fault; here it comes from the file that the
mapping is of, if there is one (preprocess/sources/mapped.py). Memory then stays flat however much is read.
"""

import struct
from typing import TYPE_CHECKING, Any

from preprocess.sources.mapped import Mapping, mapping_of

if TYPE_CHECKING:
    import pyarrow as pa


class Values:
    """A column of bytes or strings of one chunk: what `values[row]` gives is the bytes, or None where it is null."""

    def __init__(self, array: "pa.Array", mappings: list[Mapping]) -> None:
        import pyarrow as pa

        self._array: Any = array
        self._nulls = bool(array.null_count)
        narrow = pa.types.is_binary(array.type) or pa.types.is_string(array.type)
        self._ends = struct.Struct("=ii" if narrow else "=qq")
        self._width = self._ends.size // 2
        self._mapping: Mapping | None = None
        buffers = array.buffers()
        if len(buffers) != 3 or buffers[1] is None or buffers[2] is None:
            return
        # Where the first value's end is written, and where the first byte of all values lies.
        self._places = (buffers[1].address + array.offset * self._width, buffers[2].address)
        found = [mapping_of(buffer.address, buffer.size, mappings) for buffer in buffers[1:]]
        if found[0] is found[1]:
            self._mapping = found[0]

    def __getitem__(self, row: int) -> bytes | None:
        """Copies one value. Raises OSError where its file cannot be read."""
        if self._nulls and self._array.slice(row, 1).null_count:
            return None
        if self._mapping is None:
            data: bytes = self._array[row].as_buffer().to_pybytes()
            return data
        ends, values = self._places
        start, end = self._ends.unpack(self._mapping.read(ends + row * self._width, 2 * self._width))
        return self._mapping.read(values + start, end - start)
