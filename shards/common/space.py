"""Free space on disks, asked before something large is written; and numbers of bytes for people."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from shards.common.errors import ShardfeedError


def free_bytes(place: Path) -> tuple[int, Path]:
    """Bytes free for this user on the file system of `place`, and the nearest directory above it that exists."""
    place = place.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free, place


def check_room(what: str, needed: Mapping[Path, int], advice: str) -> None:
    """Raises ShardfeedError where a file system has too little room for the bytes needed in the directories on it.

    `what`: names the bytes in the message, and `advice` says how to find room elsewhere.
    """
    on: dict[int, list[Path]] = {}
    for directory in needed:
        on.setdefault(free_bytes(directory)[1].stat().st_dev, []).append(directory)
    for directories in on.values():
        free, _ = free_bytes(directories[0])
        wanted = sum(needed[directory] for directory in directories)
        if wanted > free:
            places = " and ".join(map(str, directories))
            raise ShardfeedError(
                f"{what} needs about {size(wanted)} in {places}, and {size(free)} are free there: free some space, "
                f"or {advice}"
            )


def size(count: float) -> str:
    """A number of bytes for people: 31.4 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
