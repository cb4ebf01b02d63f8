"""Every kind of image file that a converter meets, and what becomes of it: the tests' cases and the manual's table.

python -m tests.helpers.picture_cases      writes the table into docs/images.md
"""

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from tests import ROOT
from tests.conftest import jpeg, photo
from tests.helpers.pictures import (
    ARITHMETIC,
    PHOTO,
    TAIL,
    damaged,
    deep_rgb_png,
    exif,
    gif,
    looping_exif,
    many_scans,
    mpo,
    picture,
    png,
    png_text,
    rotated,
    saved,
    with_exif,
    with_frame,
    with_orientation_in_xmp,
    with_scan_header,
    with_size,
    ycck,
)

Pixels = npt.NDArray[np.uint8]
# What --original does with a file.
KEPT, ANEW, REJECTED, UNNOTICED = "kept", "encoded anew", "rejected", "kept: the damage is not noticed"

BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
CORRUPT = "damaged JPEG: the data of its pixels is corrupt"
TRUNCATED = "truncated JPEG: its data ends too early"
UNKNOWN = "not an image in a known format, or its header is damaged"


@dataclass(frozen=True)
class Case:
    """A file and its fate. `kind`: what it is counted as, None if it is rejected; then `reason` says why.

    `pixels`: what it must look like, where that is known better than from Pillow's conversion of it to RGB.
    """

    name: str
    data: bytes
    kind: str | None
    original: str
    reason: str = ""
    pixels: Pixels | None = None

    def looks(self) -> Pixels:
        """The RGB pixels that a viewer would show: upright, on white."""
        if self.pixels is not None:
            return self.pixels
        image: Image.Image = Image.open(io.BytesIO(self.data))
        if self.kind is not None and "exif-rotated" in self.kind:
            image = ImageOps.exif_transpose(image)
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return np.asarray(image.convert("RGB"))


def _used(name: str, data: bytes, kind: str, original: str = ANEW, pixels: Pixels | None = None) -> Case:
    return Case(name, data, kind, original, pixels=pixels)


def _rejected(name: str, data: bytes, reason: str, original: str = REJECTED) -> Case:
    return Case(name, data, None, original, reason)


def _half_transparent() -> Image.Image:
    image = picture("RGBA")
    image.putalpha(Image.fromarray(np.full(PHOTO.shape[:2], 128, np.uint8)))
    return image


_GRAY = np.asarray(picture("L"))
_GRAY_RGB = np.stack([_GRAY] * 3, axis=-1)
_PALETTE = Image.fromarray(np.kron(PHOTO[::20, ::20], np.ones((20, 20, 1), np.uint8))).quantize(8)
_JPEG = jpeg(PHOTO)
_LARGE = jpeg(photo(200, 300))
_BITS_CHANGED = damaged(_LARGE, b"\xa5" * 40)
_MEGAPIXELS = "pixels are more than the limit of 64 megapixels"

CASES = (
    _used("JPEG, baseline, 4:2:0", _JPEG, "jpeg", KEPT),
    _used("JPEG, baseline, 4:4:4", saved(picture(), "JPEG", subsampling=0), "jpeg", KEPT),
    _used("JPEG, with restart markers", saved(picture(), "JPEG", restart_marker_blocks=2), "jpeg", KEPT),
    _used("JPEG, progressive", saved(picture(), "JPEG", progressive=True), "jpeg progressive", KEPT),
    _used("JPEG, arithmetic-coded", ARITHMETIC, "jpeg arithmetic"),
    _used("JPEG, RGB without transform", saved(picture(), "JPEG", keep_rgb=True, quality=95), "jpeg rgb"),
    _used("JPEG, gray", saved(picture("L"), "JPEG"), "jpeg gray"),
    _used("JPEG, CMYK", saved(picture("CMYK"), "JPEG", quality=95), "jpeg cmyk", pixels=PHOTO),
    _used("JPEG, YCCK", ycck(), "jpeg ycck"),
    _used("JPEG with a colour profile (ICC)", saved(picture(), "JPEG", icc_profile=b"profile"), "jpeg icc", KEPT),
    _used("JPEG, EXIF orientation 1 (upright)", rotated(1), "jpeg", KEPT),
    *(_used(f"JPEG, EXIF orientation {turn}", rotated(turn), "jpeg exif-rotated") for turn in range(2, 9)),
    _used("JPEG, EXIF orientation out of range", rotated(9), "jpeg", KEPT),
    _used(
        "JPEG, orientation in XMP only",
        with_orientation_in_xmp(_JPEG, 3),
        "jpeg exif-rotated",
        pixels=np.asarray(Image.open(io.BytesIO(_JPEG)))[::-1, ::-1],
    ),
    _used("JPEG, EXIF that is no EXIF", with_exif(_JPEG, b"not a directory of tags"), "jpeg exif-broken"),
    _used("JPEG, EXIF cut off inside a tag", with_exif(_JPEG, b"MM\0\x2a\0\0\0\x08\0\x09\x01"), "jpeg exif-broken"),
    _used("JPEG, EXIF whose directories form a loop", with_exif(_JPEG, looping_exif()), "jpeg", KEPT),
    _used("JPEG with bytes behind its end", _JPEG + b"junk", "jpeg"),
    _used("JPEG with padding before its end", _JPEG[:-2] + bytes(3) + _JPEG[-2:], "jpeg", KEPT),
    _used(
        "JPEG, progressive, with 10 MB behind its end",
        saved(picture(), "JPEG", progressive=True) + TAIL,
        "jpeg progressive",
    ),
    _used(
        "JPEG, progressive, with 10 MB behind its end that end like a JPEG",
        saved(picture(), "JPEG", progressive=True) + TAIL + b"\xff\xd9",
        "jpeg progressive",
    ),
    _used("JPEG with a second picture behind it (MPO)", mpo(), "jpeg"),
    _used("PNG", saved(picture()), "png", pixels=PHOTO),
    _used("PNG with 2 MB of text", saved(picture(), pnginfo=png_text(2_000_000)), "png", pixels=PHOTO),
    _used("PNG, gray", saved(picture("L")), "png gray", pixels=_GRAY_RGB),
    _used("PNG, black and white", saved(picture("1")), "png gray"),
    _used("PNG, gray and alpha", saved(_half_transparent().convert("LA")), "png gray alpha"),
    _used("PNG, palette", saved(_PALETTE), "png palette"),
    _used("PNG, palette with a transparent colour", saved(_PALETTE, transparency=0), "png palette alpha"),
    _used("PNG, RGBA", saved(_half_transparent()), "png alpha"),
    _used(
        "PNG, 16-bit gray",
        saved(Image.fromarray(_GRAY.astype(np.uint16) * 257)),
        "png 16-bit gray",
        pixels=_GRAY_RGB,
    ),
    _used("PNG, 16-bit RGB", deep_rgb_png(), "png 16-bit", pixels=PHOTO),
    _used("PNG, EXIF orientation 6", saved(picture(), exif=exif(6)), "png exif-rotated"),
    _used("WebP", saved(picture(), "WEBP", lossless=True), "webp", pixels=PHOTO),
    _used("GIF", saved(_PALETTE, "GIF"), "gif palette"),
    _used("BMP", saved(picture(), "BMP"), "bmp", pixels=PHOTO),
    _used("TIFF", saved(picture(), "TIFF"), "tiff", pixels=PHOTO),
    _used("one pixel", saved(Image.new("RGB", (1, 1), (200, 30, 40))), "png"),
    _used("one pixel wide, 64 high", saved(Image.fromarray(PHOTO[:, :1]).resize((1, 64))), "png"),
    _rejected("empty file", b"", "the file is empty (0 bytes)"),
    _rejected("text", b"<html>not found</html>", UNKNOWN),
    _rejected("PostScript", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", UNKNOWN),
    _rejected("JPEG, truncated", _JPEG[:-200], TRUNCATED),
    _rejected("JPEG, its last byte missing", _JPEG[:-1], TRUNCATED),
    _rejected("JPEG, truncated inside its header", _JPEG[:150], "damaged JPEG: it ends inside its header"),
    _rejected("JPEG whose pixels would begin behind its end", with_scan_header(_JPEG, 60_000), UNKNOWN),
    _rejected("JPEG, gray, truncated", saved(picture("L"), "JPEG")[:-200], TRUNCATED),
    _rejected(
        "JPEG, CMYK, truncated",
        saved(picture("CMYK"), "JPEG")[:-200],
        "truncated JPEG: it cannot be decoded",
    ),
    _rejected(
        "JPEG, progressive, its end missing",
        saved(picture(), "JPEG", progressive=True)[:-300] + b"\xff\xd9",
        CORRUPT,
        UNNOTICED,
    ),
    _rejected("JPEG with a hole of zeros", damaged(_LARGE, bytes(600)), CORRUPT),
    _rejected("JPEG that ends in its middle", damaged(_LARGE, b"\xff\xd9"), CORRUPT),
    _rejected("JPEG with changed bytes among its pixels", _BITS_CHANGED, CORRUPT, UNNOTICED),
    _rejected(
        "JPEG, nonsense between its segments",
        b"\xff\xd8\xff\xe0\x00\x04ab" + bytes(100),
        "damaged JPEG: a segment does not start with a marker",
    ),
    _rejected(
        "JPEG, lossless",
        with_frame(_JPEG, 0xC3, 8),
        "unsupported JPEG: its pixels are coded without loss, or hierarchically",
    ),
    _rejected("JPEG, 12 bits a sample", with_frame(_JPEG, 0xC1, 12), "unsupported JPEG: it has 12 bits a sample"),
    _rejected("PNG, truncated", saved(picture())[:-2000], "truncated PNG: it cannot be decoded"),
    _rejected("JPEG bomb, 3,000 megapixels", with_size(_JPEG, 60_000, 50_000), f"60000 x 50000 {_MEGAPIXELS}"),
    _rejected("JPEG bomb, 100,000 scans", many_scans(100_000), "100010 scans are more than the limit of 100"),
    _rejected(
        "PNG bomb, 3,000 megapixels",
        png(60_000, 50_000, 8, 2, b""),
        "it has more pixels than the limit of 64 megapixels",
    ),
    _rejected("PNG bomb, 100 megapixels", png(10_000, 10_000, 8, 2, b""), f"10000 x 10000 {_MEGAPIXELS}"),
    _rejected("GIF bomb, 900 megapixels", gif(30_000, 30_000), "it has more pixels than the limit of 64 megapixels"),
    _rejected("JPEG without rows", with_size(_JPEG, 60, 0), "it has no pixels (60 x 0)"),
    _rejected(
        "one pixel wide, 200 high",
        jpeg(photo(200, 2)[:, :1]),
        "1 x 200 pixels: one side is more than 64 times the other",
    ),
    _rejected(
        "65 times as wide as high",
        jpeg(photo(8, 520)),
        "520 x 8 pixels: one side is more than 64 times the other",
    ),
    _rejected(
        "TIFF, floating point",
        saved(picture().convert("F"), "TIFF"),
        "TIFF with pixels of mode F, which have no agreed meaning as RGB",
    ),
)


def table() -> str:
    """The cases as a table in Markdown."""
    lines = ["| file | resized | `--original` |", "|---|---|---|"]
    for case in CASES:
        fate = f"counted as `{case.kind}`" if case.kind else f"rejected: {case.reason}"
        lines.append(f"| {case.name} | {fate} | {case.original} |")
    return "\n".join(lines)


def with_table(text: str) -> str:
    """A page with the table put between its two marks."""
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def main() -> None:
    """Writes the table into the manual."""
    path = ROOT / "docs" / "images.md"
    path.write_text(with_table(path.read_text()))


if __name__ == "__main__":
    main()
