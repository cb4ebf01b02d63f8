"""Checks of one stored image: its size by its header, and whether it decodes.

Decoding is libjpeg-turbo's by way of simplejpeg: the decoder inside Pillow and DALI, but one that also reports corrupt
data, where those deliver a smear. Raw pixels need no decoding: an image whose header, length and checksum are right is
what was stored.
"""

import io
import struct

from shards.format.layout import Encoding
from shards.format.ppm import ppm_size


def image_size(data: bytes, encoding: Encoding) -> tuple[int, int]:
    """Width and height in pixels by the header of a stored image. Raises ValueError where it is damaged."""
    return ppm_size(data) if encoding == "raw" else jpeg_size(data)


def jpeg_size(data: bytes) -> tuple[int, int]:
    """Width and height in pixels by a JPEG's frame header (ITU-T T.81, B.2.2). Raises ValueError where it has none."""
    position = 2
    try:
        if not data.startswith(b"\xff\xd8"):
            raise ValueError("it does not start like a JPEG")
        while True:
            start, marker, length = struct.unpack_from(">BBH", data, position)
            if start != 0xFF or marker == 0xDA:
                raise ValueError("it has no frame header before its first scan")
            if marker == 0xFF:  # padding
                position += 1
                continue
            if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
                height, width = struct.unpack_from(">HH", data, position + 5)
                return width, height
            position += 2 + length
    except struct.error:
        raise ValueError("it ends inside its header") from None


def decoding_error(data: bytes) -> str | None:
    """Why a JPEG cannot be decoded whole; None where it can."""
    import simplejpeg

    try:
        simplejpeg.decode_jpeg(data, "RGB")
    except ValueError as error:
        if "subsampling" not in str(error):
            return str(error)
        return _pillow_error(data)  # ways of subsampling that simplejpeg does not know
    return None


def _pillow_error(data: bytes) -> str | None:
    from PIL import Image

    try:
        Image.open(io.BytesIO(data), formats=["JPEG"]).load()
    except (OSError, SyntaxError, ValueError) as error:
        return str(error)
    return None
