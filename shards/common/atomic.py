"""Files that are either whole or absent: written beside their place, synced to disk, then renamed.

A killed process or a power loss leaves at most a file ending in `.part`, which the next attempt overwrites. No file
under its final name is ever half-written.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

PART = ".part"


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Opens `path` + ".part" for writing; renames it to `path` after the block, once its bytes are on disk.

    Makes missing parent directories. If the block raises, the partial file is removed, which gives the space of a full
    disk back, and `path` stays unchanged. Raises OSError as the file system does.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + PART)
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Makes renames and removals inside a directory survive a power loss."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
