"""One row of a source, still encoded: what every kind of source gives."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """`data`: the image file's bytes, never decoded here; `label`: its class number; `path`: its name in the source."""

    data: bytes
    label: int
    path: str
