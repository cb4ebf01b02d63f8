"""Image files of every kind that a converter meets, made in memory."""

import base64
import io
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.conftest import jpeg, photo

# Smooth, so that halving the resolution of its colours, as encoders do, costs little.
PHOTO = np.asarray(Image.fromarray(photo(8, 12)).resize((60, 40), Image.Resampling.BICUBIC))
# 24 x 16 pixels, coded arithmetically by libjpeg-turbo 2.1; no library that Python has at hand writes such files.
ARITHMETIC = base64.b85decode(
    "|JeWF01!$>Nk#wx0RR9200961|JwjV00jdC1Ox*G1Ox;H1qB8N3<w7Y2L}%e3keJn4-yg)4-pX)791B76dDx~5f~vD8XX-UA0HDJA|xUnBpe<e"
    "9{<|_LjeT^1qTKP4hRSi9uyH29v&VZ9v&VZ9v&VZ9v&VZ9v&VZ9v&VZ9v&VZ9v&VZ9v&VZ9v&VZ9v&VZ9v&VZ9v=V601*fP5C9kh0U`hb5di}c"
    "0sqVZ3IGrg1pyEd1^?Or3<CiG0ucid06zf#0N51W>5-9fgZ6e&ckOe<b2$*Wu>K+<u79lm0GfEnbE*?5;xCGWLu0->d)VRA^J9~m_L!c!a*_=H*#"
)


def saved(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    """The bytes of an image file as Pillow writes it."""
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def picture(mode: str = "RGB", pixels: npt.NDArray[np.uint8] = PHOTO) -> Image.Image:
    """A photograph in one of Pillow's modes."""
    return Image.fromarray(pixels).convert(mode)


def with_exif(data: bytes, exif: bytes) -> bytes:
    """A JPEG with an EXIF segment of any content right behind its start."""
    body = b"Exif\x00\x00" + exif
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]


def rotated(orientation: int, data: bytes | None = None) -> bytes:
    """A JPEG whose EXIF holds nothing but an orientation."""
    entry = struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0)
    return with_exif(data or jpeg(PHOTO), b"MM\x00\x2a\x00\x00\x00\x08\x00\x01" + entry + b"\x00\x00\x00\x00")


def ycck() -> bytes:
    """A CMYK JPEG whose Adobe segment says that its colours are luma, chroma and black."""
    data = bytearray(saved(picture("CMYK"), "JPEG", quality=95))
    data[data.index(b"Adobe") + 11] = 2
    return bytes(data)


def png(width: int, height: int, depth: int, colour: int, raw: bytes) -> bytes:
    """A PNG of any header, with `raw` as its filtered lines: for kinds that Pillow does not write."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def deep_rgb_png() -> bytes:
    """PHOTO with 16 bits a channel."""
    lines = [b"\x00" + row.astype(">u2").tobytes() for row in PHOTO.astype(np.uint16) * 257]
    return png(PHOTO.shape[1], PHOTO.shape[0], 16, 2, b"".join(lines))


# More than a hundred places that look like the start of a scan.
TAIL = np.random.default_rng(0).integers(0, 256, 10_000_000, np.uint8).tobytes()


def mpo() -> bytes:
    """A file of two pictures, as cameras write them: a JPEG with another one behind it."""
    return saved(picture(), "MPO", save_all=True, append_images=[picture().rotate(180)])


def png_text(length: int) -> PngInfo:
    """So many characters of text, compressed."""
    info = PngInfo()
    info.add_text("comment", "x" * length, zip=True)
    return info


def with_frame(data: bytes, frame: int, precision: int) -> bytes:
    """A JPEG whose frame header names another coding process and another number of bits."""
    at = data.index(b"\xff\xc0")
    return data[: at + 1] + bytes([frame]) + data[at + 2 : at + 4] + bytes([precision]) + data[at + 5 :]


def with_size(data: bytes, width: int, height: int) -> bytes:
    """A JPEG whose frame header lies about its size."""
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def with_scan_header(data: bytes, length: int) -> bytes:
    """A JPEG whose scan header lies about its length."""
    at = data.index(b"\xff\xda") + 2
    return data[:at] + struct.pack(">H", length) + data[at + 2 :]


def exif(orientation: int) -> Image.Exif:
    """EXIF as Pillow writes it."""
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def with_orientation_in_xmp(data: bytes, orientation: int) -> bytes:
    """A JPEG that says only in XMP how it is turned."""
    body = b'http://ns.adobe.com/xap/1.0/\x00<rdf:Description tiff:Orientation="%d"/>' % orientation
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]


def looping_exif() -> bytes:
    """EXIF whose first directory names itself as the next one and as the directory of its own details."""
    entry = struct.pack(">HHII", 0x8769, 4, 1, 8)
    return b"MM\x00\x2a\x00\x00\x00\x08\x00\x01" + entry + b"\x00\x00\x00\x08"


def damaged(data: bytes, insert: bytes) -> bytes:
    """A JPEG whose bytes in the middle are replaced."""
    middle = len(data) // 2
    return data[:middle] + insert + data[middle + len(insert) :]


def many_scans(count: int) -> bytes:
    """A progressive JPEG with many more scans, which decoders would take one after the other."""
    data = saved(picture(), "JPEG", progressive=True)
    return data[:-2] + b"\xff\xda\x00\x08\x01\x01\x00\x00\x00\x10" * count + data[-2:]


def gif(width: int, height: int) -> bytes:
    """The beginning of a GIF of any size: one image without pixels."""
    screen = b"GIF89a" + struct.pack("<HHBBB", width, height, 0, 0, 0)
    return screen + b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x08\x00;"
