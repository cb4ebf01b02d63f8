"""Which images of tars of others can stay where they are: those of which Pillow and DALI make the same pixels.

These are whole images of 8 bits, gray or RGB (JPEG: also YCbCr), upright and opaque, as JPEG, PNG or WebP;
tests/preprocess/index/test_in_place.py compares the pixels. All others are cleaned as a conversion cleans them
(preprocess/images/convert.py), and stored as their pixels.
"""

import struct
from dataclasses import dataclass

from zlib_ng.zlib_ng import crc32

from preprocess.images import jpeg_header as jpeg
from preprocess.images.convert import MAX_SCANS, PNG, Reject, convert, jpeg_kind, target_size

# Chunks of a PNG that change no pixel of 8-bit gray or RGB. Others may: a transparent colour (tRNS), a rotation (eXIf,
# XMP in iTXt), further pictures (acTL).
PNG_CHUNKS = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tEXt", b"zTXt", b"tIME", b"pHYs", b"bKGD", b"sRGB"})
PNG_COLOURS = {0: "png gray", 2: "png"}
RIFF, WEBP = b"RIFF", b"WEBP"


@dataclass(frozen=True)
class Look:
    """An image that can stay: its size in pixels and its kind ("jpeg", "png gray", ...)."""

    width: int
    height: int
    kind: str


def look(data: bytes) -> Look | None:
    """The image in the whole file `data`; None for one that must be cleaned. Raises Reject for one of no use."""
    if data.startswith(jpeg.START):
        header = _jpeg_header(data)
        found = _plain_jpeg(header, header.ended)
        if found is None or jpeg.looks_whole(data, header):
            return found if header.whole or found is None or jpeg.count_scans(data, header) <= MAX_SCANS else None
        # Only decoding tells; a gray one is not kept by a conversion, and is cleaned here too.
        return found if convert(data, None, 90).data is data else None
    if data.startswith(PNG):
        return _plain_png(data)
    if data.startswith(RIFF):
        return _plain_webp(data, len(data))
    return None


def look_at_head(head: bytes, size: int) -> Look | None:
    """As `look`, by the first bytes of a file of `size` bytes; None also where they do not tell.

    Whether the file is whole cannot be seen so.
    """
    if head.startswith(RIFF):
        return _plain_webp(head, size)
    if not head.startswith(jpeg.START):
        return None
    try:
        header = jpeg.read_header(head)
    except ValueError:
        return None
    return _plain_jpeg(header, True) if header.whole else None


def _jpeg_header(data: bytes) -> jpeg.Header:
    try:
        return jpeg.read_header(data)
    except ValueError as error:
        raise Reject(f"damaged JPEG: {error}") from None


def _plain_jpeg(header: jpeg.Header, ended: bool) -> Look | None:
    plain = header.frame in jpeg.HUFFMAN and header.precision == 8 and header.orientation == 1
    if not (plain and ended and not header.multiple and (header.components == 1 or header.ycbcr)):
        return None
    width, height = target_size(header.width, header.height, None)
    return Look(width, height, jpeg_kind(header))


def _plain_png(data: bytes) -> Look | None:
    position, chunks = len(PNG), list[bytes]()
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        chunk = data[position + 4 : position + 8 + length]
        checksum = data[position + 8 + length : position + 12 + length]
        if chunk[:4] not in PNG_CHUNKS or crc32(chunk) != int.from_bytes(checksum, "big") or len(checksum) < 4:
            return None
        chunks.append(chunk[:4])
        if chunk[:4] == b"IEND":
            break
        position += 12 + length
    if not chunks or chunks[0] != b"IHDR" or chunks[-1] != b"IEND" or b"IDAT" not in chunks:
        return None
    width, height, depth, colour = struct.unpack_from(">IIBB", data, 16)
    if depth != 8 or colour not in PNG_COLOURS:
        return None
    return Look(*target_size(width, height, None), PNG_COLOURS[colour])


def _plain_webp(head: bytes, size: int) -> Look | None:
    """A WebP with one picture, without transparency or metadata (RFC 9649, sections 2.5 and 2.6)."""
    if len(head) < 30 or head[8:12] != WEBP or int.from_bytes(head[4:8], "little") + 8 != size:
        return None
    if head[12:16] == b"VP8 " and head[23:26] == b"\x9d\x01\x2a":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", head, 26))
    elif head[12:16] == b"VP8L" and head[20] == 0x2F:
        bits = int.from_bytes(head[21:25], "little")
        if bits >> 28 & 1:  # transparency is used
            return None
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        return None
    return Look(*target_size(width, height, None), "webp")
