"""Reads the structure of a JPEG without decoding it: its kind, and whether all decoders read the same pixels.

After ITU-T T.81, annex B (markers and segments), and Adobe Technical Note 5116 (the colour transform).
"""

import re
import struct
import warnings
from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.ExifTags import Base

START = b"\xff\xd8"
END = b"\xff\xd9"
SOS, DHT, DQT, DRI, COM, APP1, APP2, APP14 = 0xDA, 0xC4, 0xDB, 0xDD, 0xFE, 0xE1, 0xE2, 0xEE
FIRST_RESTART, LAST_RESTART = 0xD0, 0xD7
# Start-of-frame markers by coding process. Few decoders know the others (lossless, hierarchical, arithmetic).
BASELINE, EXTENDED, PROGRESSIVE = 0xC0, 0xC1, 0xC2
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
HUFFMAN = frozenset({BASELINE, EXTENDED, PROGRESSIVE})
ARITHMETIC = frozenset({0xC9, 0xCA})
# Segments that do not change the meaning of the pixels: tables of the decoder, and comments.
PASSED_OVER = frozenset({DHT, DQT, DRI, COM})
# Markers without a length behind them: TEM and the restart markers.
ALONE = frozenset({0x01, *range(0xD0, 0xD8)})

EXIF = b"Exif\x00\x00"
XMP = b"http://ns.adobe.com/xap/1.0/\x00"
ICC = b"ICC_PROFILE\x00"
MPF = b"MPF\x00"
# Coded pixels hold no long runs of zeros; files with pages that were never downloaded do.
HOLE = bytes(256)
_PIECE = 1024  # bytes
XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')


@dataclass(frozen=True)
class Header:
    """The fields of a JPEG before its first scan.

    `frame`: its start-of-frame marker; `precision`: bits a sample; `components`: colour channels;
    `adobe`: Adobe's colour transform (0 none, 1 YCbCr, 2 YCCK) or None; `ids`: the names of the components;
    `orientation`: 1 to 8 as EXIF counts them, 1 where the file has none, None for EXIF that cannot be read;
    `icc`: whether there is a colour profile; `multiple`: whether further pictures follow (MPO);
    `ended`: whether the file ends with the end-of-image marker;
    `coded`: position of the first byte of the first scan's coded pixels; `whole`: whether that scan holds all
    components, so that it is the only scan.
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
    multiple: bool
    ended: bool
    coded: int
    whole: bool

    @property
    def ycbcr(self) -> bool:
        """Whether decoders read the three components as luma and chroma, by libjpeg's rule."""
        if self.components != 3:
            return False
        if self.jfif:
            return True
        if self.adobe is not None:
            return self.adobe == 1
        return self.ids != b"RGB"


def read_header(data: bytes) -> Header:
    """Reads the segments up to the first scan. Raises ValueError, with the reason, for a damaged header."""
    if not data.startswith(START):
        raise ValueError("it does not start like a JPEG")
    frame: tuple[int, bytes] | None = None
    adobe: int | None = None
    jfif = icc = multiple = False
    exif: bytes | None = None
    xmp = b""
    position = 2
    try:
        while True:
            if data[position] != 0xFF:
                raise ValueError("a segment does not start with a marker")
            marker = data[position + 1]
            if marker in PASSED_OVER:
                position += 2 + (data[position + 2] << 8 | data[position + 3])
                continue
            position += 1
            if marker == 0xFF:  # padding before a marker
                continue
            position += 1
            if marker in ALONE:
                continue
            length = data[position] << 8 | data[position + 1]
            if marker == SOS:
                coded, in_scan = position + length, data[position + 2]
                break
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
            elif marker == APP2 and body.startswith(MPF):
                multiple = True
            elif marker == APP1 and body.startswith(EXIF) and exif is None:
                exif = body
            elif marker == APP1 and body.startswith(XMP):
                xmp += body
        if frame is None:
            raise ValueError("it has no frame header before its first scan")
        precision, height, width, components = struct.unpack_from(">BHHB", frame[1])
        ids = frame[1][6 : 6 + 3 * components : 3]
        if len(ids) < components:
            raise IndexError
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
        multiple=multiple,
        ended=data.endswith(END),
        coded=coded,
        whole=in_scan == components and frame[0] != PROGRESSIVE,
    )


def count_scans(data: bytes, header: Header) -> int:
    """The number of scans up to the end of the picture: for each of them a decoder goes over all its pixels."""
    end = data.find(END, header.coded)
    return 1 + data.count(b"\xff\xda", header.coded, len(data) if end < 0 else end)


def looks_whole(data: bytes, header: Header) -> bool:
    """Whether the coded pixels have the structure of an undamaged file; looks at the markers, decodes nothing.

    False where the end-of-image marker is missing or comes too early, where other markers than expected stand among
    the pixels, where restart markers are out of order, and where there is a hole of zeros. Bytes that changed into
    other bytes are not noticed. False for some sound files too (restart markers in several scans): decode to be sure.
    """
    if not header.ended or header.coded > len(data) - len(END):
        return False
    coded = np.frombuffer(data, np.uint8, offset=header.coded)
    strays, zeros = _count_pairs(coded)
    if zeros >= len(HOLE) - 1 and HOLE in data:
        return False
    if header.whole and strays == 1:  # the end is the only marker, as in nearly all files
        return True
    before = np.flatnonzero(coded[:-1] == 0xFF)
    markers = coded[before + 1]
    markers = markers[(markers != 0) & (markers != 0xFF)]
    if not len(markers) or markers[-1] != END[1]:
        return False
    if not header.whole:
        return bool(np.isin(markers[:-1], (DHT, SOS)).all())
    turns = FIRST_RESTART + np.arange(len(markers) - 1) % (LAST_RESTART - FIRST_RESTART + 1)
    return np.array_equal(markers[:-1], turns)


@numba.njit(nogil=True, cache=True)
def _count_pairs(coded: npt.NDArray[np.uint8]) -> tuple[int, int]:
    """The number of markers (0xFF followed by neither zero nor 0xFF), and of zeros followed by a zero.

    In coded pixels 0xFF is followed by a zero, which decoders drop; several 0xFF may stand before a marker. There is a
    counter of one byte for each place in a piece, so that vector instructions count many places at a time.
    """
    strays, zeros = np.zeros(_PIECE, np.uint8), np.zeros(_PIECE, np.uint8)
    all_strays = all_zeros = 0
    pieces = 0
    for start in range(0, coded.size - 1, _PIECE):
        stop = min(start + _PIECE, coded.size - 1)
        _add_pairs(coded[start:stop], coded[start + 1 : stop + 1], strays, zeros)
        pieces += 1
        if pieces == 255:
            all_strays += strays.sum()
            all_zeros += zeros.sum()
            strays[:] = 0
            zeros[:] = 0
            pieces = 0
    return all_strays + strays.sum(), all_zeros + zeros.sum()


@numba.njit(nogil=True, cache=True)
def _add_pairs(
    these: npt.NDArray[np.uint8],
    following: npt.NDArray[np.uint8],
    strays: npt.NDArray[np.uint8],
    zeros: npt.NDArray[np.uint8],
) -> None:
    for i in range(following.size):
        this, next_one = these[i], following[i]
        strays[i] += np.uint8((this == 0xFF) & (next_one != 0) & (next_one != 0xFF))
        zeros[i] += np.uint8((this | next_one) == 0)


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
            # Pillow's parser raises errors of any kind for damaged EXIF; the picture itself may be sound.
            return None
    if value is None and (found := XMP_ORIENTATION.search(xmp)):
        value = int(found[1])
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
