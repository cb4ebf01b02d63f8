"""Raw pixels as a file that other programs open: binary PPM (Netpbm's "P6"), 8-bit RGB.

A header in ASCII, "P6\\nWIDTH HEIGHT\\n255\\n", then the rows from the top, three bytes a pixel, without gaps. Only this
form of the header is written and read, so the last 3 * WIDTH * HEIGHT bytes are the pixels.
"""

import re

import numpy as np
import numpy.typing as npt

_HEADER = re.compile(rb"P6\n([1-9][0-9]{0,8}) ([1-9][0-9]{0,8})\n255\n")
_LONGEST = 27  # bytes of the longest header


def ppm(pixels: npt.NDArray[np.uint8]) -> bytes:
    """The file of an RGB image (height, width, 3)."""
    height, width, channels = pixels.shape
    if channels != 3 or pixels.dtype != np.uint8:
        raise ValueError(f"a PPM holds 8-bit RGB, not {channels} channels of {pixels.dtype}")
    return b"P6\n%d %d\n255\n%b" % (width, height, np.ascontiguousarray(pixels).tobytes())


def ppm_size(data: bytes | memoryview) -> tuple[int, int]:
    """Width and height in pixels of a file that `ppm` made. Raises ValueError for another header or length."""
    view = memoryview(data).cast("B")
    header = _HEADER.match(view[:_LONGEST])
    if header is None:
        raise ValueError("it does not start like a binary PPM of 8 bits")
    width, height = int(header[1]), int(header[2])
    expected = header.end() + 3 * width * height
    if len(view) != expected:
        raise ValueError(f"a PPM of {width} x {height} pixels has {expected} bytes, not {len(view)}")
    return width, height
