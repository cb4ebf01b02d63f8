"""Files that are either whole or absent: written beside their place, synced to disk, then renamed.

A killed process or a power loss leaves at most a file ending in `.part`, which the next attempt overwrites. No file
under its final name is ever half-written.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from shards.common.errors import UsageError

PART = ".part"
# Why no file can be made in a directory, where the system's words mislead.
_REASONS: dict[type[OSError], str] = {
    NotADirectoryError: "it is a file",
    FileNotFoundError: "the system allows none",
    PermissionError: "this user has no permission",
}


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


def refuse_unwritable(option: str, path: Path, *, directory: bool = False) -> None:
    """Raises UsageError, naming `option`, where no file `path` can be made, or no file in the `directory` of that path.

    To be called before work begins. It tries: permissions do not tell of disks that are read-only, nor of /proc. What
    it makes has no name, on file systems that can do that, and is gone when it returns.
    """
    if path.is_dir() and not directory:
        raise UsageError(f"{option} {path} is a directory: give the path of a file")
    there = path.absolute() if directory else path.absolute().parent
    while not os.path.exists(there):  # noqa: PTH110 - Path.exists raises where a directory may not be searched
        there = there.parent
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        reason = _REASONS.get(type(error)) or error.strerror or str(error)
        raise UsageError(
            f"{option} {path} cannot be written, because no file can be made in {there} ({reason}): give another place"
            f"{', or change its permissions' if isinstance(error, PermissionError) else ''}"
        ) from None


def sync_directory(path: Path) -> None:
    """Makes renames and removals inside a directory survive a power loss."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
