"""Reads one array of structs from a MATLAB file of version 5, which is how the devkit of ILSVRC2012 names its classes.

The format is in "MAT-File Format" by MathWorks: elements of (type, length, data padded to 8 bytes), each perhaps
compressed by zlib. Only what that one file needs is known here: structs whose fields are text or single numbers. The
alternative is SciPy, 40 MB for a table of a thousand rows.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import Any

# Types of elements: numbers by their struct code, and those that hold others.
NUMBERS = {1: "b", 2: "B", 3: "h", 4: "H", 5: "i", 6: "I", 7: "f", 9: "d", 12: "q", 13: "Q", 16: "B"}
MATRIX, COMPRESSED, UTF8 = 14, 15, 16
# Classes of arrays.
STRUCT, CHAR = 2, 4
NUMERIC = range(6, 16)
HEADER = 128
MAX_BYTES = 64 << 20  # of the array: the devkit's is 2 MB


def read_structs(data: bytes, name: str) -> list[dict[str, Any]]:
    """The array of structs called `name`: of each its fields, str or float, and None for arrays.

    Raises ValueError for anything else than such a file.
    """
    if len(data) < HEADER or data[126:128] != b"IM":
        raise ValueError("it is no MATLAB file of version 5")
    for kind, body in _elements(data[HEADER:]):
        if kind == COMPRESSED:
            inflate = zlib.decompressobj()
            try:
                kind, body = next(_elements(inflate.decompress(body, MAX_BYTES)))
            except (zlib.error, StopIteration):
                raise ValueError("its compressed data is damaged") from None
        if kind == MATRIX and (found := _structs(body, name)) is not None:
            return found
    raise ValueError(f"it holds no array {name} of structs")


def _structs(body: bytes, name: str) -> list[dict[str, Any]] | None:
    parts = _elements(body)
    array_class, size, own_name = _head(parts)
    if array_class != STRUCT or own_name != name:
        return None
    (length,) = _numbers(*_next(parts))
    text = _next(parts)[1]
    fields = [text[at : at + int(length)].split(b"\0")[0].decode() for at in range(0, len(text), int(length))]
    return [{field: _value(*_next(parts)) for field in fields} for _ in range(size)]


def _value(kind: int, body: bytes) -> Any:
    if kind != MATRIX:
        raise ValueError("a field is no array")
    if not body:  # MATLAB writes an empty array so
        return None
    parts = _elements(body)
    array_class, size, _ = _head(parts)
    if array_class == CHAR:
        kind, data = _next(parts)
        return data.decode() if kind == UTF8 else "".join(map(chr, map(int, _numbers(kind, data))))
    if array_class in NUMERIC and size == 1:
        return float(_numbers(*_next(parts))[0])
    return None


def _head(parts: Iterator[tuple[int, bytes]]) -> tuple[int, int, str]:
    """The class of an array, its number of values, and its name."""
    flags = _numbers(*_next(parts))
    size = 1
    for side in _numbers(*_next(parts)):
        size *= int(side)
    return int(flags[0]) & 0xFF, size, _next(parts)[1].decode()


def _numbers(kind: int, data: bytes) -> tuple[Any, ...]:
    code = NUMBERS.get(kind)
    if code is None or not data or len(data) % struct.calcsize(f"<{code}"):
        raise ValueError("numbers are missing, or of an unknown type")
    return struct.unpack(f"<{len(data) // struct.calcsize(f'<{code}')}{code}", data)


def _next(parts: Iterator[tuple[int, bytes]]) -> tuple[int, bytes]:
    for part in parts:
        return part
    raise ValueError("an array ends too early")


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The elements that follow each other in `data`: type and content. Those of up to 4 bytes have a short head."""
    at = 0
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<II", data, at)
        begin = at + 8
        if kind >> 16:
            kind, length, begin = kind & 0xFFFF, kind >> 16, at + 4
        end = begin + length
        if end > len(data) or (begin == at + 4 and length > 4):
            raise ValueError("an element is longer than the file")
        yield kind, data[begin:end]
        at = max(end, at + 8)
        if kind != COMPRESSED:  # the only ones that are not padded
            at += -at % 8
