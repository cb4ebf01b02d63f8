"""Converts the bytes of one image file to a clean RGB JPEG, or to raw pixels.

Clean means that every decoder reads the same pixels: a JPEG of 8-bit YCbCr, baseline or progressive, that needs no
rotation. Ordinary JPEGs take a fast path: libjpeg-turbo through simplejpeg, and preprocess/images/resize.py. That is
the decoder of Pillow and torchvision, with the same pixels, but this binding reports corrupt data, which the others
decode to smears without a word, and a worker needs no torch. All other files go through Pillow.
What each kind of file becomes (docs/images.md has the whole table, made from the tests' cases):

- gray, 16-bit gray (scaled to 8 bits), palette, CMYK and YCCK (inverted as Adobe stores them): RGB
- transparency: laid over white, as viewers show it
- EXIF or XMP orientation: applied to the pixels; EXIF that cannot be read: upright
- EXIF, colour profiles and all other metadata of images that are encoded again: dropped, the pixel values stay
- animations: the first frame
- truncated or damaged files, more than MAX_PIXELS, sides longer than 1 : MAX_ASPECT: rejected with the reason

An image that is clean and has the right size already is kept byte for byte. It is not decoded, which would take ten
times as long as all the rest: its structure is checked (jpeg.looks_whole), and it is decoded only where that leaves a
doubt. Raw pixels are those that the JPEG would be encoded from; they are always decoded.
"""

import io
import re
import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image
from PIL.ExifTags import Base

from preprocess.images import jpeg_header as jpeg
from preprocess.images.resize import resize
from shards.format.layout import Encoding
from shards.format.ppm import ppm

Pixels = npt.NDArray[np.uint8]

# 64 megapixels: 200 MB decoded. Larger images are rejected by their header, before decoding.
MAX_PIXELS = 64_000_000
# Beyond this ratio a crop shows a smear, and a side that is enlarged exceeds the limits of decoders.
MAX_ASPECT = 64
MAX_JPEG_SIDE = 65_500  # libjpeg's limit
# Progressive files have about ten scans. Thousands keep a decoder busy for hours, whatever the number of pixels.
MAX_SCANS = 100

# Only these formats, so that a file cannot choose an exotic parser (or PostScript's interpreter).
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "PPM", "AVIF")
STRAYS = re.compile("([0-9]+) extraneous bytes before marker 0xd9")
PNG = b"\x89PNG\r\n\x1a\n"
PNG_TEXT = frozenset({b"tEXt", b"zTXt", b"iTXt"})
PNG_XMP = b"XML:com.adobe.xmp\x00"
DEEP_GRAY = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})
WITH_ALPHA = frozenset({"RGBA", "RGBa", "LA", "La", "PA"})
# Pillow's modes whose colours are well defined, and their words in the kind of a file.
MODES = {
    "1": "gray",
    "L": "gray",
    "LA": "gray alpha",
    "La": "gray alpha",
    "P": "palette",
    "PA": "palette alpha",
    "RGB": "",
    "RGBA": "alpha",
    "RGBa": "alpha",
    "CMYK": "cmyk",
    "YCbCr": "",
    **dict.fromkeys(DEEP_GRAY, "16-bit gray"),
}


class Reject(Exception):
    """An image that cannot be used. The message is the reason, always the same for the same bytes."""


@dataclass(frozen=True)
class Converted:
    """A clean RGB image, its size in pixels, and the kind of file it was ("jpeg", "jpeg gray", "png palette", ...).

    `data`: a JPEG, or a binary PPM. `enlarged`: whether the image file was smaller.
    """

    data: bytes
    width: int
    height: int
    kind: str
    enlarged: bool = False


def convert(data: bytes, short_side: int | None, quality: int, encoding: Encoding = "jpeg") -> Converted:
    """Makes a clean RGB image of an image file.

    `short_side`: length of the result's shorter side in pixels; None keeps the size. The longer side is
    int(short_side * longer / shorter), as torchvision's Resize computes it; smaller images are enlarged.
    `quality`: JPEG quality, 1 to 100, of images that are encoded again. `encoding`: "jpeg", or "raw" for the pixels.
    Raises Reject.
    """
    if not data:
        raise Reject("the file is empty (0 bytes)")
    if data.startswith(jpeg.START):
        try:
            header = jpeg.read_header(data)
        except ValueError as error:
            raise Reject(f"damaged JPEG: {error}") from None
        return _convert_jpeg(data, header, short_side, quality, encoding)
    pixels, kind = _pillow_pixels(data)
    return _encode(pixels, kind, short_side, quality, encoding)


def image_size(data: bytes) -> tuple[int, int]:
    """Width and height in pixels by an image file's header, before any rotation. Raises Reject where it has none."""
    if data.startswith(jpeg.START):
        try:
            header = jpeg.read_header(data)
        except ValueError as error:
            raise Reject(f"damaged JPEG: {error}") from None
        return header.width, header.height
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _open_with_pillow(data).size


def target_size(width: int, height: int, short_side: int | None) -> tuple[int, int]:
    """Width and height of the result, in pixels. Raises Reject for sizes that cannot be used."""
    if width < 1 or height < 1:
        raise Reject(f"it has no pixels ({width} x {height})")
    if width * height > MAX_PIXELS:
        raise Reject(f"{width} x {height} pixels are more than the limit of {MAX_PIXELS // 1_000_000} megapixels")
    short, long = sorted((width, height))
    if long > MAX_ASPECT * short:
        raise Reject(f"{width} x {height} pixels: one side is more than {MAX_ASPECT} times the other")
    if short_side is None or short == short_side:
        size = (width, height)
    elif width <= height:
        size = (short_side, int(short_side * height / width))
    else:
        size = (int(short_side * width / height), short_side)
    if max(size) > MAX_JPEG_SIDE:
        raise Reject(f"{width} x {height} pixels would become {size[0]} x {size[1]}, more than a JPEG can hold")
    return size


def _convert_jpeg(
    data: bytes, header: jpeg.Header, short_side: int | None, quality: int, encoding: Encoding
) -> Converted:
    if header.frame not in jpeg.HUFFMAN | jpeg.ARITHMETIC:
        raise Reject("unsupported JPEG: its pixels are coded without loss, or hierarchically")
    if header.precision != 8:
        raise Reject(f"unsupported JPEG: it has {header.precision} bits a sample")
    size = target_size(header.width, header.height, short_side)
    kind = jpeg_kind(header)
    plain = header.frame in jpeg.HUFFMAN
    ours = plain and (header.ycbcr or header.components == 1)
    if not header.whole and (scans := jpeg.count_scans(data, header)) > MAX_SCANS:
        raise Reject(f"{scans} scans are more than the limit of {MAX_SCANS}")
    clean = plain and header.ycbcr and header.orientation == 1 and header.ended and not header.multiple
    if clean and size == (header.width, header.height) and encoding == "jpeg":
        if jpeg.looks_whole(data, header):
            return Converted(data, *size, kind)
        _decode(data)
        if data.find(jpeg.END, header.coded) == len(data) - len(jpeg.END):  # nothing lies behind the picture
            return Converted(data, *size, kind)
    pixels = _decode(data) if ours else _pillow_pixels(data)[0]
    return _encode(_upright(pixels, header.orientation or 1), kind, short_side, quality, encoding)


def _decode(data: bytes) -> Pixels:
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(data, "RGB", fastdct=False, fastupsample=False)
    except ValueError as error:
        if "Premature end of JPEG file" in str(error):
            raise Reject("truncated JPEG: its data ends too early") from None
        if (strays := STRAYS.search(str(error))) and _is_padded(data, int(strays[1])):
            # Pillow, which has the same decoder, does not stop at this warning.
            return _pillow_pixels(data)[0]
        if "Corrupt JPEG data" in str(error):
            raise Reject("damaged JPEG: the data of its pixels is corrupt") from None
        # Rare kinds of subsampling, which simplejpeg does not support.
        return _pillow_pixels(data)[0]
    return pixels


def _is_padded(data: bytes, strays: int) -> bool:
    """Whether the bytes that the decoder left over are padding. After damage they are the pixels that it missed."""
    end = data.rfind(jpeg.END)
    return len(set(data[end - strays : end])) == 1


def jpeg_kind(header: jpeg.Header) -> str:
    """The kind of a JPEG in words, for example "jpeg gray progressive"."""
    words = ["jpeg"]
    if header.components == 1:
        words.append("gray")
    elif header.components == 4:
        words.append("ycck" if header.adobe == 2 else "cmyk")
    elif not header.ycbcr:
        words.append("rgb")
    if header.frame == jpeg.PROGRESSIVE:
        words.append("progressive")
    elif header.frame in jpeg.ARITHMETIC:
        words.append("arithmetic")
    if header.orientation is None:
        words.append("exif-broken")
    elif header.orientation != 1:
        words.append("exif-rotated")
    if header.icc:
        words.append("icc")
    return " ".join(words)


def _pillow_pixels(data: bytes) -> tuple[Pixels, str]:
    """Decodes any known format to (height, width, 3) uint8, and names its kind.

    The orientation of a JPEG is not applied, since the caller has read its header; that of other formats is.
    """
    with warnings.catch_warnings():
        # Pillow warns of large sizes and of damaged metadata; both are handled here.
        warnings.simplefilter("ignore")
        image = _open_with_pillow(data)
        target_size(*image.size, None)
        kind = _pillow_kind(image)
        try:
            image.load()
            pixels = _rgb(image)
        except Exception as error:
            state = "truncated" if "truncated" in str(error) else "damaged"
            raise Reject(f"{state} {kind.split()[0].upper()}: it cannot be decoded") from None
        if data.startswith(jpeg.START):
            return pixels, kind
        try:
            orientation = image.getexif().get(Base.Orientation, 1)
        except Exception:
            return pixels, f"{kind} exif-broken"
    if orientation in TURNS:
        return _upright(pixels, orientation), f"{kind} exif-rotated"
    return pixels, kind


def _open_with_pillow(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(_without_text(data)), formats=FORMATS)
    except Image.DecompressionBombError:
        raise Reject(f"it has more pixels than the limit of {MAX_PIXELS // 1_000_000} megapixels") from None
    except Exception:
        # Pillow's parsers raise errors of any kind, and its message holds a memory address.
        raise Reject("not an image in a known format, or its header is damaged") from None


def _without_text(data: bytes) -> bytes:
    """A PNG without its text, of which Pillow refuses more than a megabyte; any other file as it is. XMP stays."""
    if not data.startswith(PNG):
        return data
    parts, position = [PNG], len(PNG)
    while position < len(data):
        end = position + 12 + int.from_bytes(data[position : position + 4], "big")
        chunk = data[position:end]
        if chunk[4:8] not in PNG_TEXT or chunk[8:].startswith(PNG_XMP):
            parts.append(chunk)
        position = end
    return b"".join(parts)


def _pillow_kind(image: Image.Image) -> str:
    if image.mode not in MODES:
        raise Reject(f"{image.format} with pixels of mode {image.mode}, which have no agreed meaning as RGB")
    words = [(image.format or "").lower(), MODES[image.mode]]
    if image.mode not in DEEP_GRAY and any(";16" in str(tile.args) for tile in getattr(image, "tile", [])):
        words.append("16-bit")
    if image.mode not in WITH_ALPHA and "transparency" in image.info:
        words.append("alpha")
    return " ".join(word for word in words if word)


def _rgb(image: Image.Image) -> Pixels:
    if image.mode in DEEP_GRAY:
        # Pillow's own conversion cuts everything above 255 off instead of scaling it.
        deep = np.asarray(image).astype(np.uint32)
        gray = ((deep + 128) // 257).astype(np.uint8)
        return np.repeat(gray[..., None], 3, axis=2)
    if image.mode in WITH_ALPHA or "transparency" in image.info:
        over = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over)
    return np.asarray(image.convert("RGB"))


# EXIF orientation -> (whether to swap rows and columns first, the axes to flip then) of (height, width, 3).
TURNS: dict[int, tuple[bool, tuple[int, ...]]] = {
    2: (False, (1,)),
    3: (False, (0, 1)),
    4: (False, (0,)),
    5: (True, ()),
    6: (True, (1,)),
    7: (True, (0, 1)),
    8: (True, (0,)),
}


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    if orientation not in TURNS:
        return pixels
    swap, axes = TURNS[orientation]
    return np.flip(pixels.swapaxes(0, 1) if swap else pixels, axes)


def _encode(pixels: Pixels, kind: str, short_side: int | None, quality: int, encoding: Encoding) -> Converted:
    width, height = target_size(pixels.shape[1], pixels.shape[0], short_side)
    enlarged = min(pixels.shape[:2]) < min(width, height)
    pixels = np.ascontiguousarray(pixels)
    if pixels.shape[:2] != (height, width):
        pixels = resize(pixels, width, height)
    if encoding == "raw":
        return Converted(ppm(pixels), width, height, kind, enlarged)
    data = simplejpeg.encode_jpeg(pixels, quality, "RGB", "420", fastdct=False)
    return Converted(data, width, height, kind, enlarged)
