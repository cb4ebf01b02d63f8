"""Mutations of files, seeded: of bytes, as a disk or a copy damages them, and of values, as a program might."""

import copy
import io
import json
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

Mutation = Callable[[bytes, random.Random], bytes]

# Values that stand where others are expected.
ODD: list[Any] = [
    None, True, -1, 0, 1, 7, 2**31 - 1, 2**31, 2**63 - 1, 2**64, -(2**70), 0.5, 1e308, float("nan"), "", "x", "0",
    "../../x", "/etc/passwd", "\x00", "\x1b[31m", "\ud800", "a" * 5000, [], {}, [[]], [1, "x"], {"x": {}},
]  # fmt: skip


def bytes_of(data: bytes, draw: random.Random) -> bytes:
    """Changes, adds, removes or moves bytes at one place."""
    first = draw.randrange(len(data))
    last = min(len(data), first + draw.choice([1, 1, 2, 8, 64, 512, 4096]))
    part = data[first:last]
    other = draw.randrange(len(data))
    change: Callable[[], bytes] = draw.choice(
        [
            lambda: data[:first] + bytes([data[first] ^ 1 << draw.randrange(8)]) + data[first + 1 :],
            lambda: data[:first] + draw.randbytes(len(part)) + data[last:],
            lambda: data[:first] + bytes(len(part)) + data[last:],
            lambda: data[:first] + data[last:],
            lambda: data[:first] + part + part + data[last:],
            lambda: data[:first] + data[other : other + len(part)] + data[last:],
            lambda: data[:first],
            lambda: data + draw.randbytes(len(part)),
        ]
    )
    return change()


def json_of(data: bytes, draw: random.Random) -> bytes:
    """Changes, adds or removes one value of a JSON document, or one bit of its text."""
    if draw.random() < 0.3:
        return bytes_of(data, draw)
    content = json.loads(data)
    places = list(_places(content))
    holder, key = draw.choice(places)
    change = draw.randrange(6)
    if change == 0:
        del holder[key]
    elif change == 1:
        holder[key] = copy.deepcopy(draw.choice([inside[at] for inside, at in places]))
    elif change == 2 and isinstance(holder, dict):
        holder[draw.choice(["x", "", "__class__", str(key).upper()])] = copy.deepcopy(draw.choice(ODD))
    elif change == 2:
        holder.append(copy.deepcopy(holder[key]))
    elif change == 3 and isinstance(holder[key], int):
        holder[key] += draw.choice([-1, 1, 8, 512])
    else:
        holder[key] = copy.deepcopy(draw.choice(ODD))
    return json.dumps(content).encode()


def lines_of(data: bytes, draw: random.Random) -> bytes:
    """Changes one line of a file of JSON lines."""
    if draw.random() < 0.3:
        return bytes_of(data, draw)
    lines = data.splitlines(keepends=True)
    at = draw.randrange(len(lines))
    lines[at] = json_of(lines[at], draw).strip() + b"\n"
    return b"".join(lines)


def table_of(data: bytes, draw: random.Random) -> bytes:
    """Changes one value, row or column of a parquet file, or bytes of it."""
    if draw.random() < 0.5:
        return bytes_of(data, draw)
    table = pq.read_table(io.BytesIO(data))
    at, row = draw.randrange(table.num_columns), draw.randrange(table.num_rows)
    field, column = table.field(at), table.column(at)
    change = draw.randrange(6)
    if change == 0:
        table = table.remove_column(at)
    elif change == 1:
        order = list(range(table.num_rows))
        draw.shuffle(order)
        table = table.take(order)
    elif change == 2:
        table = table.slice(0, row)
    elif change == 3:
        table = table.set_column(at, field.name, column.cast(draw.choice([pa.string(), pa.float64()]), safe=False))
    else:
        values = column.to_pylist()
        if pa.types.is_integer(field.type):
            info = np.iinfo(field.type.to_pandas_dtype())
            near = values[row] + draw.choice([-512, -1, 1, 512])
            values[row] = draw.choice([None, 0, 1, info.min, info.max, min(max(near, info.min), info.max)])
        else:
            values[row] = draw.choice([None, "", "x", "é" * 200, values[0]])
        table = table.set_column(at, field.name, pa.array(values, field.type))
    file = io.BytesIO()
    pq.write_table(table, file)
    return file.getvalue()


def _places(content: Any) -> list[tuple[Any, Any]]:
    """Every (holder, key) of a JSON document."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    found: list[tuple[Any, Any]] = []
    for key, value in items:
        found += [(content, key), *_places(value)]
    return found
