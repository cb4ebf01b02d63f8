import io

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from shards.format.ppm import ppm, ppm_size

PIXELS = st.tuples(st.integers(1, 40), st.integers(1, 40)).flatmap(lambda size: arrays(np.uint8, (*size, 3)))
FILE = ppm(np.zeros((7, 5, 3), np.uint8))


@given(pixels=PIXELS)
def test_pillow_reads_it_and_writes_the_same(pixels: npt.NDArray[np.uint8]) -> None:
    data = ppm(pixels)
    image = Image.open(io.BytesIO(data))
    assert image.format == "PPM"
    assert np.array_equal(np.asarray(image), pixels)
    theirs = io.BytesIO()
    image.save(theirs, "PPM")
    assert theirs.getvalue() == data


@given(pixels=PIXELS)
def test_the_size_is_read_from_the_header_and_the_pixels_are_the_rest(pixels: npt.NDArray[np.uint8]) -> None:
    data = ppm(pixels)
    width, height = ppm_size(data)
    assert (height, width) == pixels.shape[:2]
    assert data[-3 * width * height :] == pixels.tobytes()


def test_pixels_that_lie_otherwise_in_memory_are_stored_from_the_top() -> None:
    pixels = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    assert ppm(pixels[::-1, ::-1]) == ppm(pixels[::-1, ::-1].copy())
    assert ppm(np.asfortranarray(pixels)) == ppm(pixels)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "does not start like"),
        (FILE[:4], "does not start like"),
        (FILE.replace(b"P6", b"P5"), "does not start like"),
        (FILE.replace(b"255", b"65535"), "does not start like"),
        (FILE.replace(b"5 7", b"0 7"), "does not start like"),
        (FILE[:-1], "5 x 7 pixels has 116 bytes, not 115"),
        (FILE + b"x", "5 x 7 pixels has 116 bytes, not 117"),
        (FILE.replace(b"5 7", b"7 7"), "7 x 7 pixels has 158 bytes, not 116"),
    ],
)
def test_other_files_have_no_size(data: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        ppm_size(data)


@pytest.mark.parametrize("pixels", [np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3), np.int16)])
def test_nothing_but_8_bit_rgb_is_stored(pixels: npt.NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match="8-bit RGB"):
        ppm(pixels)
