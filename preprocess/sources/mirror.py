"""SOURCE behind a URL: copied to this machine's disk once, as the hub's data sets are, and read from the copy.

The copy lies in ~/.cache/shardfeed/sources (XDG_CACHE_HOME moves it). A copy that was interrupted is resumed; files
that have changed at the URL are downloaded again.
"""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from shards.common.atomic import PART, replacing
from shards.common.errors import UsageError
from shards.common.locks import holding
from shards.common.space import check_room
from shards.remote.cache import cache_home
from shards.remote.object_store import ObjectStore, Stored

# Files that are downloaded at the same time.
TRANSFERS = 8


def mirrored(url: str) -> Path:
    """Copies all files at `url` into a directory, which the processes of one machine share, and returns it.

    Raises UsageError where there are no files, ShardfeedError for failed downloads and where the disk has too little
    room, OSError where it fills up meanwhile.
    """
    remote = ObjectStore(url)
    if remote.scheme in ("http", "https"):
        raise UsageError(f"{url}: a web server does not list its files; copy them to a disk, and give the directory")
    root = cache_home() / "sources" / hashlib.sha256(f"{remote}".encode()).hexdigest()[:32]
    files, known = root / "files", root / "files.json"
    with holding(root / "lock"):
        there = remote.below()
        if not there:
            raise UsageError(f"there are no files at {remote}: check the spelling")
        for file in there:
            # An object may have any name; as a path it must not lead out of the copy.
            if {"", ".", ".."} & set(file.name.split("/")):
                raise UsageError(
                    f"{remote.at(file.name)} cannot be a file here: rename it there, or copy the other files to a disk"
                )
        before = _read(known)
        missing = [file for file in there if not _is_here(files, file, before)]
        for path in _outdated(files, {file.name for file in there}):
            path.unlink()
        for file in missing:
            (files / file.name).unlink(missing_ok=True)
        check_room(
            f"the copy of {remote}",
            {files: sum(file.size for file in missing)},
            "set XDG_CACHE_HOME to a directory on another disk",
        )
        # All files that are left have these versions. Written first, so that an interrupted copy stays valid.
        with replacing(known) as out:
            out.write(json.dumps({file.name: file.version for file in there}).encode())
        with (
            tqdm(
                total=sum(file.size for file in missing), desc=str(remote), unit="B", unit_scale=True, disable=None
            ) as bar,
            ThreadPoolExecutor(TRANSFERS) as threads,
        ):
            for size in threads.map(lambda file: _fetch(remote, files, file), missing):
                bar.update(size)
    return files


def _read(known: Path) -> dict[str, str]:
    try:
        content: dict[str, str] = json.loads(known.read_bytes())
        return content
    except (FileNotFoundError, ValueError):
        return {}


def _is_here(files: Path, file: Stored, before: dict[str, str]) -> bool:
    path = files / file.name
    return before.get(file.name) == file.version and path.is_file() and path.stat().st_size == file.size


def _outdated(files: Path, names: set[str]) -> list[Path]:
    """Files of the copy that no longer exist at the URL."""
    return [path for path in files.rglob("*") if path.is_file() and path.relative_to(files).as_posix() not in names]


def _fetch(remote: ObjectStore, files: Path, file: Stored) -> int:
    path = files / file.name
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + PART)
    remote.fetch(file.name, part)
    part.replace(path)
    return file.size
