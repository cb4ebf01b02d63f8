"""Files inside tar archives, used in place: a table of where each one lies, made by reading the headers alone."""

import errno
import os
import sys
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from shards.common.errors import ShardfeedError, UsageError
from shards.common.machine import allow_open_files
from shards.format.members import NO_MARK, CutOff, Damaged, Member, Packed, members

if TYPE_CHECKING:
    import datasets

SHOWN = 10  # lines about archives that are printed


def scan(
    file: BinaryIO, where: str, start: int = 0, end: int | None = None, notes: list[str] | None = None
) -> Iterator[Member]:
    """The members of the archive that lies in bytes `start` to `end` of a file, without its directories.

    What follows the archive's end is said in `notes`. Reads nothing but headers. Raises ShardfeedError, which names
    `where`, for an archive that is damaged, or that ends before its end mark (a block of zeros), as half of a download
    does.
    """
    number, whole = file.fileno(), os.fstat(file.fileno()).st_size
    length = (whole if end is None else min(end, whole)) - start
    notes = [] if notes is None else notes

    def read(at: int, size: int) -> bytes:
        return os.pread(number, max(0, min(size, length - at)), start + at)

    try:
        for member in members(read, length, notes):
            yield member._replace(offset=start + member.offset) if start else member
        if NO_MARK in notes:
            raise CutOff(NO_MARK)
    except CutOff:
        raise ShardfeedError(
            f"{where} ends in the middle ({length:,} bytes, no end mark): it was not copied or downloaded whole; do it "
            "again"
        ) from None
    except Damaged as damage:
        advice = "" if isinstance(damage, Packed) else "; copy or download it again"
        raise ShardfeedError(f"{where} cannot be read: {damage}{advice}") from None


def say(notes: Sequence[str]) -> None:
    """Prints lines about archives on stderr, the first few."""
    for note in notes[:SHOWN]:
        print(note, file=sys.stderr)
    if len(notes) > SHOWN:
        print(f"{len(notes) - SHOWN:,} more such lines", file=sys.stderr)


class TableOfMembers:
    """Collects members, in the order of rows. `paths`: the archives, which rows name by number."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = tuple(paths)
        self._names = bytearray()
        self._numbers = [array("q") for _ in range(4)]

    def __len__(self) -> int:
        return len(self._numbers[0])

    def add(self, name: str, archive: int, member: Member) -> None:
        """Adds a row. `name`: for people; `archive`: the number of the file that the member lies in."""
        self._names += name.encode()
        values = (len(self._names), archive, member.offset, member.size)
        for column, value in zip(self._numbers, values, strict=True):
            column.append(value)

    def images(self) -> "MemberImages":
        """The rows added so far, as the images of a split."""
        ends, archives, offsets, sizes = (np.frombuffer(column, np.int64).copy() for column in self._numbers)
        return MemberImages(self._paths, bytes(self._names), ends, archives.astype(np.int32), offsets, sizes)


@dataclass(frozen=True, eq=False)
class MemberImages:
    """The images of one split, which lie in archives. Its pickle holds the table, so that no worker scans again.

    `names`, `ends`: the names of all rows as one string, and where each ends; `archives` (int32), `offsets`, `sizes`
    (int64): where each image lies.
    """

    paths: tuple[Path, ...]
    names: bytes
    ends: npt.NDArray[np.int64]
    archives: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ends)

    def name(self, row: int) -> str:
        start = self.ends[row - 1] if row else 0
        return self.names[start : self.ends[row]].decode()

    def lengths(self) -> npt.NDArray[np.int64]:
        return self.sizes

    def read(self, row: int) -> tuple[bytes, str]:
        size, name = int(self.sizes[row]), self.name(row)
        data = os.pread(self._file(int(self.archives[row])), size, int(self.offsets[row]))
        while len(data) < size:  # more than 2 GiB, or a signal
            more = os.pread(self._file(int(self.archives[row])), size - len(data), int(self.offsets[row]) + len(data))
            if not more:
                raise OSError(errno.EIO, "the archive was cut short", str(self.paths[self.archives[row]]))
            data += more
        return data, name

    def table(self) -> "datasets.Dataset":
        raise UsageError(
            "the naive loader reads images from files or parquet, not from inside archives: unpack them, and give the "
            "folder"
        )

    @cached_property
    def _files(self) -> dict[int, int]:
        """The open archives, by number. They stay open as long as the process."""
        allow_open_files(len(self.paths))
        return {}

    def _file(self, archive: int) -> int:
        if archive not in self._files:
            file = os.open(self.paths[archive], os.O_RDONLY | os.O_CLOEXEC)
            # Rows are read at random places, and the kernel would read megabytes around each.
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)
            self._files[archive] = file
        return self._files[archive]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_files"}
