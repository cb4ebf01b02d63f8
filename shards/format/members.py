"""Lists the files in a tar that anybody may have written: names, places and lengths. Nothing is extracted.

Read are POSIX ustar, GNU's and POSIX's (pax) long names and large sizes, after POSIX.1-2017, pax, "ustar Interchange
Format" and GNU tar's manual, "Basic Tar Format". `tarfile` reads more, but takes ten times as long, and believes
lengths that lie outside the file.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple
from zlib import adler32

from shards.format.layout import BLOCK

# Reads so many bytes from a position on; fewer at the end of the file.
Read = Callable[[int, int], bytes]

# The longest name, or set of extended fields, that is read. Linux's paths end at 4 kB.
LONGEST_FIELDS = 1 << 16
# Bytes behind an archive's end that are looked at.
REST = 1 << 20
_EMPTY = bytes(BLOCK)
_REGULAR = frozenset(b"0\x007")
# What `tarfile` knows to have no content, whatever size the header says.
_WITHOUT_CONTENT = frozenset(b"123456")
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


# The note about a tar that ends where a member could begin.
NO_MARK = "it ends without the mark of a tar's end: it may have been cut off between two files"


class Damaged(Exception):
    """The tar cannot be read on from here. The message says where and why."""


class Packed(Damaged):
    """The tar is compressed as a whole."""


class CutOff(Damaged):
    """The tar ends inside a member."""


class Member(NamedTuple):
    """One member: its name, the position and the length in bytes of its content.

    `kind`: "" for an ordinary file; otherwise what it is in words ("a link", "stored sparse", ...).
    """

    name: str
    offset: int
    size: int
    kind: str


@dataclass
class Fields:
    """What extended headers say of the next member."""

    name: bytes | None = None
    size: int | None = None
    sparse: bool = False


def members(read: Read, length: int, notes: list[str]) -> Iterator[Member]:
    """Yields the members of a tar of `length` bytes in order, directories left out.

    What is odd about its end goes into `notes`. Raises CutOff where the tar ends inside a member, Damaged where it is
    none, or holds what cannot be read.
    """
    position, fields = 0, Fields()
    while True:
        block = read(position, BLOCK)
        if block == _EMPTY:
            notes += _rest(read, position, length)
            return
        if len(block) < BLOCK:
            if position < length:
                raise CutOff(f"it is cut off at byte {length:,}, inside a header")
            notes.append(NO_MARK)
            return
        kind, size = block[156], _size(block, position)
        start = position + BLOCK
        if kind in b"LKxX":
            content = _fields(read, start, size, length)
            if kind == ord("L"):
                fields.name = content.rstrip(b"\0")
            elif kind != ord("K"):
                _extend(fields, content, position)
            position = start + _padded(size)
            continue
        if kind == ord("g"):  # fields of all members that follow, of which git's comment is the usual one
            common = Fields()
            _extend(common, _fields(read, start, size, length), position)
            if common != Fields():
                raise Damaged(f"the extended header at byte {position:,} gives all members one name or length")
            position = start + _padded(size)
            continue
        size = size if fields.size is None else fields.size
        sparse = fields.sparse
        if kind == ord("S"):
            sparse, start = True, _behind_sparse_map(read, block, start)
        content_size = 0 if kind in _WITHOUT_CONTENT else size
        name = (_name(block) if fields.name is None else fields.name).decode("utf-8", "backslashreplace")
        if start + content_size > length:
            raise CutOff(f"it is cut off: {_short(name)} at byte {start:,} has {content_size:,} bytes by its header")
        if sparse:
            yield Member(name, start, size, "stored sparse")
        elif kind in _REGULAR and not (kind == 0 and name.endswith("/")):
            yield Member(name, start, size, "")
        elif kind in b"12":
            yield Member(name, start, 0, "a link")
        elif kind not in b"\x005":
            yield Member(name, start, 0, "no ordinary file")
        position, fields = start + _padded(content_size), Fields()


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _size(block: bytes, position: int) -> int:
    """The length that a header announces. Raises Damaged where the block is no header."""
    try:
        stored = int(block[148:156].strip(b"\0 "), 8)
    except ValueError:
        stored = -1
    # The checksum counts its own eight bytes as blanks. Adler-32 (RFC 1950) holds 1 + the sum of all bytes, modulo
    # 65,521, and takes a twentieth of the time of `sum`.
    sum_of_all = stored - 8 * ord(" ") + sum(block[148:156])
    if stored < 0 or adler32(block) & 0xFFFF != (1 + sum_of_all) % 65_521:
        if position == 0:
            packed = next((name for start, name in _COMPRESSED.items() if block.startswith(start)), None)
            raise Packed(f"it is compressed ({packed}): unpack it first") if packed else Damaged("it is no tar")
        raise Damaged(f"the header at byte {position:,} is damaged")
    field = block[124:136]
    if field[0] == 0x80:  # GNU's way for 8 GB and more
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b"\0 ") or b"0"
    if not digits.isdigit() or digits.strip(b"01234567"):
        raise Damaged(f"the header at byte {position:,} says no length that can be")
    return int(digits, 8)


def _name(block: bytes) -> bytes:
    name = block[:100].partition(b"\0")[0]
    if block[345] and block[257:263] == b"ustar\0":  # GNU's old headers end in two blanks, and have no prefix
        return block[345:500].partition(b"\0")[0] + b"/" + name
    return name


def _fields(read: Read, start: int, size: int, length: int) -> bytes:
    if size > LONGEST_FIELDS:
        raise Damaged(f"the long name at byte {start:,} has {size:,} bytes, which no name has")
    if start + size > length:
        raise CutOff(f"it is cut off at byte {length:,}, inside a long name")
    return read(start, size)


def _extend(fields: Fields, content: bytes, position: int) -> None:
    """Adds the records of a pax header, each "LENGTH KEY=VALUE\\n"."""
    at = 0
    while at < len(content) and content[at]:
        number = content[at : at + 8].partition(b" ")[0]
        end = at + int(number) if number.isdigit() else 0
        key, equals, value = content[at + len(number) + 1 : end - 1].partition(b"=")
        if end <= at or end > len(content) or not equals or content[end - 1 : end] != b"\n":
            raise Damaged(f"the extended header at byte {position:,} is damaged")
        if key == b"path":
            fields.name = value
        elif key == b"size":
            if not value.isdigit() or len(value) > 19:
                raise Damaged(f"the extended header at byte {position:,} says no length that can be")
            fields.size = int(value)
        elif key.startswith(b"GNU.sparse."):
            fields.sparse = True
            if key == b"GNU.sparse.name":
                fields.name = value
        at = end


def _behind_sparse_map(read: Read, block: bytes, start: int) -> int:
    """The position behind the blocks that GNU's old headers of sparse files go on in."""
    more = block[482]
    while more:
        block = read(start, BLOCK)
        if len(block) < BLOCK:
            raise CutOff(f"it is cut off at byte {start + len(block):,}, inside a header")
        start, more = start + BLOCK, block[504]
    return start


def _rest(read: Read, position: int, length: int) -> Iterator[str]:
    """Says what follows an archive's end beside the zeros that fill its last record."""
    rest = read(position, min(REST, length - position))
    if rest.strip(b"\0") or length - position > REST:
        yield f"{length - position - len(_EMPTY):,} bytes follow the end of the archive and are not read"


def _short(name: str) -> str:
    return name if len(name) <= 80 else f"{name[:77]}..."
