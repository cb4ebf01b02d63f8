"""Files inside tar archives, used in place: a table of where each one lies, made by reading the headers alone.

An ordinary header is parsed here, which takes a tenth of `tarfile`'s time and keeps no object a member. Everything
else (GNU's and PAX's long names, sizes above 8 GiB, links) is left to `tarfile`.
"""

import errno
import os
import tarfile
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from preprocess.sources.source import printable
from shards.common.errors import ShardfeedError, UsageError
from shards.common.machine import allow_open_files
from shards.format.layout import BLOCK

if TYPE_CHECKING:
    import datasets

ZEROS = bytes(BLOCK)
# A PAX header without these gives only times and owners, as webdataset's writer does for every file.
MATTERS = (b" path=", b" size=", b" linkpath=", b" hdrcharset=", b" GNU.")
MAX_EXTENDED = 1 << 20  # bytes of a long name or a PAX header, which need a few hundred


@dataclass(frozen=True, slots=True)
class Member:
    """One member of an archive: its name as it is stored, the position of its first byte, and its length in bytes.

    `regular`: whether it is a file; links and devices are not.
    """

    name: bytes
    offset: int
    size: int
    regular: bool = True


def scan(file: BinaryIO, where: str, start: int = 0, end: int | None = None) -> Iterator[Member]:
    """The members of the archive that lies in bytes `start` to `end` of a file, without its directories.

    Reads nothing but headers. Raises ShardfeedError, which names `where`, for an archive that is damaged, or that ends
    before its end mark (a block of zeros), as half of a download does.
    """
    length = os.fstat(file.fileno()).st_size
    end = length if end is None else min(end, length)
    at = start
    while True:
        header = os.pread(file.fileno(), BLOCK, at) if at + BLOCK <= end else b""
        if header == ZEROS:
            return
        if len(header) < BLOCK:
            raise _cut_short(where, end - start)
        member, at = _ordinary(header, at) or _unusual(file, header, at, where)
        if member and member.offset + member.size > end:
            raise _cut_short(where, end - start)
        if member:
            yield member


def _ordinary(header: bytes, at: int) -> tuple[Member, int] | None:
    """The file that a plain ustar header describes, and where the next header is; None for any other header."""
    if header[156] not in b"0\0" or header[257:262] != b"ustar":
        return None
    size = _size(header)
    name = header[:100].split(b"\0", 1)[0]
    if header[262] == 0 and header[345]:
        name = header[345:500].split(b"\0", 1)[0] + b"/" + name
    if size is None or name.endswith(b"/"):
        return None
    return Member(name, at + BLOCK, size), at + BLOCK + size + -size % BLOCK


def _size(header: bytes) -> int | None:
    """The length in a header, where it is octal and the header's sum is right; None for others."""
    try:
        size = int(header[124:136].rstrip(b"\0 ") or b"x", 8)
        checksum = int(header[148:156].strip(b"\0 ") or b"x", 8)
    except ValueError:
        return None
    # The sum is over all bytes, with blanks in the place of its own eight.
    return size if size >= 0 and sum(header) - sum(header[148:156]) + 8 * 32 == checksum else None


def _unusual(file: BinaryIO, header: bytes, at: int, where: str) -> tuple[Member | None, int]:
    """What `tarfile` makes of any other header: the member, None for none or a directory, and where the next one is."""
    kind = header[156:157]
    try:
        if kind in (b"x", b"g", b"L", b"K"):
            size = _size(header)
            if size is None or size > MAX_EXTENDED:
                raise ValueError("a header that describes the next one is damaged or too long")
            body = os.pread(file.fileno(), size, at + BLOCK)
            if kind in (b"x", b"g") and len(body) == size and not any(word in body for word in MATTERS):
                return None, at + BLOCK + size + -size % BLOCK
            if kind == b"g":
                raise ValueError("a PAX header that describes all files alike")
        file.seek(at)
        with tarfile.TarFile(fileobj=file, mode="r", encoding="utf-8", errors="surrogateescape") as archive:
            info = archive.next()
            after = archive.offset
    except (tarfile.TarError, EOFError, ValueError, OverflowError, OSError) as error:
        raise ShardfeedError(f"{where} is damaged at byte {at:,} ({error}): copy or download it again") from None
    if info is None or info.size < 0 or after <= at:
        raise ShardfeedError(f"{where} is damaged at byte {at:,} (no header of a tar): copy or download it again")
    if info.isdir():
        return None, after
    name = info.name.encode("utf-8", "surrogateescape")
    return Member(name, info.offset_data, info.size, info.isreg() and not info.issparse()), after


def _cut_short(where: str, size: int) -> ShardfeedError:
    return ShardfeedError(
        f"{where} ends in the middle ({size:,} bytes, no end mark): it was not copied or downloaded whole; do it again"
    )


class TableOfMembers:
    """Collects members, in the order of rows. `paths`: the archives, which rows name by number."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = tuple(paths)
        self._names = bytearray()
        self._numbers = [array("q") for _ in range(4)]

    def __len__(self) -> int:
        return len(self._numbers[0])

    def add(self, name: bytes, archive: int, member: Member) -> None:
        """Adds a row. `name`: for people; `archive`: the number of the file that the member lies in."""
        self._names += name
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
        return printable(os.fsdecode(self.names[start : self.ends[row]]))

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
