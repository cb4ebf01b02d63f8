"""A command's result for programs: one line of JSON, the last that it prints."""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import msgspec

_wanted = False


@contextlib.contextmanager
def json_wanted(wanted: bool) -> Iterator[None]:
    """In the block `show_result` prints also to a terminal, if `wanted`."""
    global _wanted
    before, _wanted = _wanted, wanted
    try:
        yield
    finally:
        _wanted = before


def show_result(value: Any) -> None:
    """Prints `value` as JSON with --json or where stdout is no terminal: people have read the lines above it.

    Dataclasses and structs become objects, paths and other values without a form of their own in JSON their text.
    """
    if _wanted or not sys.stdout.isatty():
        print(msgspec.json.encode(value, enc_hook=str).decode())
