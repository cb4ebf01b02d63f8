"""Reads the header of a JPEG: enough to tell, without decoding it, what kind it is and whether decoders agree on it.

After ITU-T T.81, annex B (markers and segments), and Adobe Technical Note 5116 (the colour transform).
"""

import re
import struct
import warnings
from dataclasses import dataclass

from PIL import Image
from PIL.ExifTags import Base

START = b"\xff\xd8"
END = b"\xff\xd9"
SOS, APP1, APP2, APP14 = 0xDA, 0xE1, 0xE2, 0xEE
# Start-of-frame markers by coding process. The rest (lossless, hierarchical, arithmetic) few decoders know.
BASELINE, EXTENDED, PROGRESSIVE = 0xC0, 0xC1, 0xC2
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
HUFFMAN = frozenset({BASELINE, EXTENDED, PROGRESSIVE})
ARITHMETIC = frozenset({0xC9, 0xCA})
# Markers that stand alone: TEM and the restart markers have no length behind them.
ALONE = frozenset({0x01, *range(0xD0, 0xD8)})

EXIF = b"Exif\x00\x00"
XMP = b"http://ns.adobe.com/xap/1.0/\x00"
ICC = b"ICC_PROFILE\x00"
XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')


@dataclass(frozen=True)
class Header:
    """What stands before a JPEG's first scan.

    `frame`: its start-of-frame marker; `precision`: bits a sample; `components`: colour channels;
    `adobe`: Adobe's colour transform (0 none, 1 YCbCr, 2 YCCK) or None; `ids`: the components' names;
    `orientation`: 1 to 8 as EXIF counts them, 1 where nothing is said, or None for EXIF that cannot be read;
    `icc`: whether there is a colour profile; `ended`: whether the file ends with the end-of-image marker.
    """

    width: int
    height: int
    frame: int
    precision: int
    components: int
    ids: bytes
    adobe: int | None
    jfif: bool
    orientation: int | None
    icc: bool
    ended: bool

    @property
    def ycbcr(self) -> bool:
        """Whether decoders take the three components for luma and chroma: libjpeg's rule."""
        if self.components != 3:
            return False
        if self.jfif:
            return True
        if self.adobe is not None:
            return self.adobe == 1
        return self.ids != b"RGB"


def read_header(data: bytes) -> Header:
    """Reads the segments up to the first scan. Raises ValueError, with the reason, where they make no sense."""
    if not data.startswith(START):
        raise ValueError("it does not start like a JPEG")
    frame: tuple[int, bytes] | None = None
    adobe: int | None = None
    jfif = icc = False
    exif: bytes | None = None
    xmp = b""
    position = 2
    try:
        while True:
            if data[position] != 0xFF:
                raise ValueError("a segment does not start with a marker")
            marker = data[position + 1]
            position += 1
            if marker == 0xFF:  # padding before a marker
                continue
            position += 1
            if marker in ALONE:
                continue
            if marker == SOS:
                break
            (length,) = struct.unpack_from(">H", data, position)
            body = data[position + 2 : position + length]
            position += length
            if marker in FRAMES:
                frame = (marker, body)
            elif marker == 0xE0 and body.startswith(b"JFIF\x00"):
                jfif = True
            elif marker == APP14 and body.startswith(b"Adobe") and len(body) >= 12:
                adobe = body[11]
            elif marker == APP2 and body.startswith(ICC):
                icc = True
            elif marker == APP1 and body.startswith(EXIF) and exif is None:
                exif = body
            elif marker == APP1 and body.startswith(XMP):
                xmp += body
        if frame is None:
            raise ValueError("it has no frame header before its first scan")
        precision, height, width, components = struct.unpack_from(">BHHB", frame[1])
        ids = bytes(frame[1][6 + 3 * i] for i in range(components))
    except (IndexError, struct.error):
        raise ValueError("it ends inside its header") from None
    return Header(
        width=width,
        height=height,
        frame=frame[0],
        precision=precision,
        components=components,
        ids=ids,
        adobe=adobe,
        jfif=jfif,
        orientation=_orientation(exif, xmp),
        icc=icc,
        ended=data.endswith(END),
    )


def _orientation(exif: bytes | None, xmp: bytes) -> int | None:
    value: object = None
    if exif is not None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                tags = Image.Exif()
                tags.load(exif)
                value = tags.get(Base.Orientation)
        except Exception:
            # Pillow's parser fails in many ways on damaged EXIF; the picture itself is not in doubt.
            return None
    if value is None and (found := XMP_ORIENTATION.search(xmp)):
        value = int(found[1])
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
