"""Images that stay in others' tars are those of which DALI, on a CPU, makes Pillow's pixels; all others are cleaned."""

import contextlib

import numpy as np
import numpy.typing as npt
import pytest
from nvidia.dali import fn, types
from nvidia.dali.pipeline import pipeline_def
from PIL import Image

from preprocess.images.convert import Reject, convert
from preprocess.index.in_place import Look, look, look_at_head
from shards.format.ppm import ppm
from tests.conftest import decoded, jpeg, photo
from tests.helpers.picture_cases import CASES, KEPT, REJECTED, Case
from tests.helpers.pictures import PHOTO, picture, png_text, saved

USED = [case for case in CASES if case.kind is not None]
# Beyond the JPEGs that a conversion keeps.
STAY = {"JPEG, gray", "PNG", "PNG, gray", "PNG with 2 MB of text", "WebP", "one pixel", "one pixel wide, 64 high"}


def transparent() -> Image.Image:
    image = picture("RGBA")
    image.putalpha(128)
    return image


def by_dali(data: bytes, height: int, width: int) -> npt.NDArray[np.uint8]:
    """The pixels as the loader's graph decodes a region, here all of the image."""

    @pipeline_def(batch_size=1, num_threads=1, device_id=None)
    def definition():  # type: ignore[no-untyped-def]
        encoded = fn.external_source(name="encoded", dtype=types.UINT8, ndim=1)
        shape = fn.external_source(name="shape", dtype=types.INT32, ndim=1)
        return fn.decoders.image_slice(encoded, np.zeros(2, np.int32), shape, axis_names="HW", output_type=types.RGB)

    pipeline = definition()
    pipeline.feed_input("encoded", [np.frombuffer(data, np.uint8)])
    pipeline.feed_input("shape", [np.array([height, width], np.int32)])
    (images,) = pipeline.run()
    return np.array(images[0])


@pytest.mark.parametrize("case", USED, ids=lambda case: case.name)
def test_what_stays_is_decoded_alike_and_the_rest_is_cleaned(case: Case) -> None:
    seen = look(case.data)
    assert (seen is not None) == (case.original == KEPT or case.name in STAY), seen
    pixels = case.looks()
    if seen is None:
        made = convert(case.data, None, 90, "raw")
        assert np.array_equal(by_dali(made.data, made.height, made.width), decoded(made.data))
        return
    assert (seen.height, seen.width) == pixels.shape[:2]
    assert seen.kind == case.kind
    assert np.array_equal(by_dali(case.data, seen.height, seen.width), pixels)


@pytest.mark.parametrize("quality", [30, 80, 100])
def test_lossy_webp_is_decoded_alike(quality: int) -> None:
    data = saved(Image.fromarray(photo(75, 101)), "WEBP", quality=quality)
    assert look(data) == look_at_head(data[:64], len(data))
    assert np.array_equal(by_dali(data, 75, 101), decoded(data))


@pytest.mark.parametrize("case", [case for case in CASES if case.original == REJECTED], ids=lambda case: case.name)
def test_what_a_conversion_rejects_does_not_stay(case: Case) -> None:
    seen: Look | None = None
    with contextlib.suppress(Reject):
        seen = look(case.data)
    assert seen is None


@pytest.mark.parametrize(
    "data",
    [
        saved(picture(), "WEBP", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"),
        saved(transparent(), "WEBP", lossless=True),
        saved(picture(), "WEBP")[:-10],
        saved(picture())[:-30],
        saved(picture())[:60] + b"\x55" + saved(picture())[61:],
    ],
    ids=["WebP, EXIF", "WebP, alpha", "WebP, cut off", "PNG, cut off", "PNG, a byte changed"],
)
def test_a_doubt_means_cleaning(data: bytes) -> None:
    assert look(data) is None


def test_the_head_of_a_jpeg_is_enough_unless_it_says_that_it_is_not() -> None:
    data = jpeg(photo(200, 300))
    whole = look(data)
    assert look_at_head(data[:1000], len(data)) == whole
    assert look_at_head(data[:30], len(data)) is None  # a longer head is needed
    assert look_at_head(saved(picture(), "JPEG", progressive=True)[:1000], 5000) is None  # its scans are to be counted
    assert look_at_head(ppm(PHOTO)[:100], 5000) is None
    assert look(saved(picture(), pnginfo=png_text(5000))) is not None
