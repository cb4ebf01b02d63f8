import io
import struct
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from torchvision.io import encode_jpeg
from torchvision.transforms.v2 import functional as F

from preprocess.image import MAX_ASPECT, Reject, convert, target_size
from tests.conftest import SHARED, decoded, jpeg, photo
from tests.picture_helpers import (
    ARITHMETIC,
    PHOTO,
    deep_rgb_png,
    picture,
    png,
    rotated,
    saved,
    with_exif,
    with_size,
    ycck,
)

Pixels = npt.NDArray[np.uint8]
GRAY = np.asarray(picture("L"))
PALETTE = Image.fromarray(np.kron(PHOTO[::20, ::20], np.ones((20, 20, 1), np.uint8))).quantize(8)


def as_rgb(gray: Pixels) -> Pixels:
    return np.stack([gray] * 3, axis=-1)


def half_transparent() -> Image.Image:
    image = picture("RGBA")
    image.putalpha(Image.fromarray(np.full(PHOTO.shape[:2], 128, np.uint8)))
    return image


# name -> (file, kind, what it must look like: None for Pillow's own conversion to RGB)
KINDS: dict[str, tuple[bytes, str, Pixels | None]] = {
    "baseline": (jpeg(PHOTO), "jpeg", None),
    "4:4:4": (saved(picture(), "JPEG", subsampling=0), "jpeg", None),
    "progressive": (saved(picture(), "JPEG", progressive=True), "jpeg progressive", None),
    "arithmetic": (ARITHMETIC, "jpeg arithmetic", None),
    "rgb jpeg": (saved(picture(), "JPEG", keep_rgb=True, quality=95), "jpeg rgb", None),
    "gray": (saved(picture("L"), "JPEG"), "jpeg gray", None),
    "cmyk": (saved(picture("CMYK"), "JPEG", quality=95), "jpeg cmyk", PHOTO),
    "ycck": (ycck(), "jpeg ycck", None),
    "icc": (saved(picture(), "JPEG", icc_profile=b"profile"), "jpeg icc", None),
    "exif upright": (rotated(1), "jpeg", None),
    "exif out of range": (rotated(9), "jpeg", None),
    "exif broken": (with_exif(jpeg(PHOTO), b"not a directory of tags"), "jpeg exif-broken", None),
    "exif cut off": (with_exif(jpeg(PHOTO), b"MM\x00\x2a\x00\x00\x00\x08\x00\x09\x01"), "jpeg exif-broken", None),
    "png": (saved(picture()), "png", PHOTO),
    "gray png": (saved(picture("L")), "png gray", as_rgb(GRAY)),
    "bilevel png": (saved(picture("1")), "png gray", None),
    "gray alpha png": (saved(half_transparent().convert("LA")), "png gray alpha", None),
    "palette png": (saved(PALETTE), "png palette", None),
    "alpha png": (saved(half_transparent()), "png alpha", None),
    "16-bit gray png": (saved(Image.fromarray(GRAY.astype(np.uint16) * 257)), "png 16-bit gray", as_rgb(GRAY)),
    "16-bit png": (deep_rgb_png(), "png 16-bit", PHOTO),
    "webp": (saved(picture(), "WEBP", lossless=True), "webp", PHOTO),
    "gif": (saved(PALETTE, "GIF"), "gif palette", None),
    "bmp": (saved(picture(), "BMP"), "bmp", PHOTO),
    "tiff": (saved(picture(), "TIFF"), "tiff", PHOTO),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_becomes_an_rgb_jpeg_that_looks_the_same(name: str) -> None:
    data, kind, expected = KINDS[name]
    converted = convert(data, None, 98)
    image = Image.open(io.BytesIO(converted.data))
    assert converted.kind == kind
    assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (converted.width, converted.height))
    if "alpha" in kind:
        original = Image.open(io.BytesIO(data)).convert("RGBA")
        expected = np.asarray(Image.alpha_composite(Image.new("RGBA", original.size, "white"), original).convert("RGB"))
    elif expected is None:
        expected = decoded(data)
    difference = np.abs(decoded(converted.data).astype(int) - expected)
    assert difference.mean() < 4, difference.mean()


@pytest.mark.parametrize("name", ["baseline", "4:4:4", "progressive", "icc", "exif upright"])
def test_clean_images_keep_their_bytes_and_dali_reads_them_as_pillow_does(name: str) -> None:
    fn = pytest.importorskip("nvidia.dali.fn")
    from nvidia.dali import pipeline_def

    data = KINDS[name][0]
    assert convert(data, None, 50).data == data

    @pipeline_def(batch_size=1, num_threads=1, device_id=None)
    def decode() -> Any:
        return fn.decoders.image(fn.external_source(name="file", batch=False))

    pipe = decode()
    pipe.build()
    pipe.feed_input("file", [np.frombuffer(data, np.uint8)])
    assert np.array_equal(np.asarray(pipe.run()[0][0]), decoded(data))


@pytest.mark.parametrize("name", ["gray", "cmyk", "rgb jpeg", "arithmetic", "exif broken", "png"])
def test_other_images_are_encoded_anew(name: str) -> None:
    converted = convert(KINDS[name][0], None, 90)
    assert converted.data != KINDS[name][0]
    assert convert(converted.data, None, 90).data == converted.data


def test_bytes_behind_the_end_of_a_jpeg_are_dropped() -> None:
    converted = convert(jpeg(PHOTO) + b"junk", None, 95)
    assert converted.data.endswith(b"\xff\xd9")
    assert np.abs(decoded(converted.data).astype(int) - decoded(jpeg(PHOTO))).mean() < 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_baked_in(orientation: int) -> None:
    data = rotated(orientation)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    converted = convert(data, None, 95)
    assert np.abs(decoded(converted.data).astype(int) - expected).mean() < 4
    assert converted.kind == ("jpeg" if orientation == 1 else "jpeg exif-rotated")
    assert Image.open(io.BytesIO(converted.data)).getexif().get(0x0112, 1) == 1


def test_orientation_of_a_png_is_baked_in() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    converted = convert(saved(picture(), exif=exif), None, 95)
    assert (converted.width, converted.height, converted.kind) == (40, 60, "png exif-rotated")


def test_orientation_that_only_xmp_holds_is_baked_in() -> None:
    body = b'http://ns.adobe.com/xap/1.0/\x00<rdf:Description tiff:Orientation="6"/>'
    data = jpeg(PHOTO)
    data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]
    assert (convert(data, None, 90).width, convert(data, None, 90).height) == (40, 60)


@settings(max_examples=30, deadline=None)
@given(
    height=st.integers(20, 90),
    width=st.integers(20, 90),
    short_side=st.integers(8, 64),
    orientation=st.sampled_from([1, 6]),
)
def test_a_resized_image_is_torchvisions(height: int, width: int, short_side: int, orientation: int) -> None:
    data = rotated(orientation, jpeg(photo(height, width)))
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    pixels = F.resize(torch.from_numpy(np.array(upright)).permute(2, 0, 1), [short_side], antialias=True)
    converted = convert(data, short_side, 90)
    assert (converted.height, converted.width) == tuple(pixels.shape[1:])
    if min(height, width) != short_side or orientation != 1:
        assert converted.data == encode_jpeg(pixels.contiguous(), 90).numpy().tobytes()
    else:
        assert converted.data == data


@given(width=st.integers(1, 5000), height=st.integers(1, 5000), short_side=st.integers(8, 512))
def test_the_size_is_that_of_torchvisions_resize(width: int, height: int, short_side: int) -> None:
    if max(width, height) > MAX_ASPECT * min(width, height):
        with pytest.raises(Reject, match="times the other"):
            target_size(width, height, short_side)
        return
    size = target_size(width, height, short_side)
    expected = F.resize(torch.empty(1, height, width, device="meta", dtype=torch.float32), [short_side], antialias=True)
    assert size == (expected.shape[2], expected.shape[1])


def test_quality_is_heeded() -> None:
    assert len(convert(saved(picture()), None, 40).data) < len(convert(saved(picture()), None, 90).data)


# name -> (file, what the reason says)
REJECTED = {
    "empty": (b"", "empty"),
    "text": (b"<html>not found</html>", "not an image"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
    "cut jpeg": (jpeg(PHOTO)[:-200], "truncated JPEG"),
    "jpeg without its last byte": (jpeg(PHOTO)[:-1], "truncated JPEG"),
    "cut jpeg header": (jpeg(PHOTO)[:150], "damaged JPEG: it ends inside its header"),
    "jpeg marker soup": (b"\xff\xd8\xff\xe0\x00\x04ab" + bytes(100), "damaged JPEG"),
    "cut gray jpeg": (saved(picture("L"), "JPEG")[:-200], "truncated JPEG"),
    "cut cmyk jpeg": (saved(picture("CMYK"), "JPEG")[:-200], "truncated JPEG"),
    "cut png": (saved(picture())[:-2000], "PNG: it cannot be decoded"),
    "jpeg bomb": (with_size(jpeg(PHOTO), 60_000, 50_000), "limit of 64 megapixels"),
    "png bomb": (png(60_000, 50_000, 8, 2, b""), "limit of 64 megapixels"),
    "medium png bomb": (png(10_000, 10_000, 8, 2, b""), "limit of 64 megapixels"),
    "no pixels": (with_size(jpeg(PHOTO), 60, 0), "no pixels"),
    "one pixel wide": (jpeg(photo(200, 2)[:, :1]), "1 x 200 pixels: one side is more than 64 times"),
    "floating point": (saved(picture().convert("F"), "TIFF"), "mode F"),
}


@pytest.mark.parametrize("name", REJECTED)
def test_what_cannot_be_used_is_rejected_with_the_reason(name: str) -> None:
    data, reason = REJECTED[name]
    with pytest.raises(Reject, match=reason) as caught:
        convert(data, 32, 90)
    assert "0x" not in str(caught.value)  # a memory address would differ from run to run


def test_one_pixel_alone_grows() -> None:
    converted = convert(saved(Image.new("RGB", (1, 1), (200, 30, 40))), 32, 95)
    assert (converted.width, converted.height) == (32, 32)
    assert np.abs(decoded(converted.data).astype(int) - [200, 30, 40]).max() < 5


def test_a_result_beyond_what_a_jpeg_can_hold_is_rejected() -> None:
    with pytest.raises(Reject, match="more than a JPEG can hold"):
        target_size(1000, 50, 4096)


@pytest.mark.skipif(not (SHARED / "imagenet-sample").is_dir(), reason="the real images are not here")
def test_real_images_are_classified_as_counted_by_hand() -> None:
    from collections import Counter

    from preprocess import jpeg as header
    from preprocess.source import open_source

    source = open_source(str(SHARED / "imagenet-sample"))
    headers = [
        header.read_header(source.row(split, i).data) for split in source.splits for i in range(source.num_rows(split))
    ]
    assert Counter(each.components for each in headers) == {3: 977, 1: 23}
    assert all(each.ended and each.precision == 8 for each in headers)
