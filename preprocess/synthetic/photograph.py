"""Image files of the synthetic data set: drawn scenes in ImageNet's sizes and qualities, and with its oddities.

Some files are what a converter must repair: gray, CMYK, PNG under a JPEG's name, or stored turned
with an EXIF tag that says so.
"""

import io

import numpy as np
from PIL import Image

from preprocess.synthetic import scene

# Sizes of ImageNet's images, measured on 1,000 of them: the longer side in pixels and longer / shorter
# side, each after the shares of images that stay below.
LONG_SIDE_SHARES = (0, 0.01, 0.03, 0.05, 0.1, 0.2, 0.8, 0.9, 0.95, 0.97, 0.99, 1)
LONG_SIDES = (75, 150, 212, 250, 350, 500, 500, 594, 750, 800, 1095, 2000)
ASPECT_SHARES = (0, 0.03, 0.05, 0.1, 0.2, 0.5, 0.6, 0.8, 0.9, 0.95, 1)
ASPECTS = (1, 1, 1.03, 1.18, 1.332, 1.334, 1.39, 1.5, 1.505, 1.59, 2)
PORTRAITS = 0.26
# (share, JPEG quality, chroma subsampling as Pillow numbers it: 0 is 4:4:4, 2 is 4:2:0), likewise.
QUALITIES = ((0.7, 96, 0), (0.08, 90, 2), (0.18, 82, 2), (0.04, 75, 2))

# Shares of files that a converter must repair, more than ImageNet's own so that small sets hold some.
GRAY, CMYK, PNG, ROTATED = 0.03, 0.02, 0.02, 0.03
# EXIF orientation -> how the upright picture is turned to be stored under that tag.
ORIENTATIONS = {
    3: Image.Transpose.ROTATE_180,
    6: Image.Transpose.ROTATE_90,
    8: Image.Transpose.ROTATE_270,
}
ORIENTATION_TAG = 0x0112


def encoded(rng: np.random.Generator, shape: str) -> bytes:
    """An image file with the class `shape` (of scene.SHAPES) in it: mostly a JPEG, always an upright picture."""
    width, height = _size(rng)
    # Detail and quality are what spread ImageNet's bytes per pixel from 0.14 to 1.1 (5% and 95% of the images).
    look = scene.Look(detail=float(np.clip(np.exp(rng.normal(3.0, 0.5)), 4, 35)), noise=float(rng.uniform(0.5, 5)))
    planes = scene.draw(rng, shape, width, height, look)
    kind = rng.random()
    turn = rng.choice(list(ORIENTATIONS))
    share = np.cumsum([entry[0] for entry in QUALITIES])
    _, quality, subsampling = QUALITIES[np.searchsorted(share, rng.random() * share[-1], side="right")]

    if kind < GRAY:
        return _jpeg(Image.fromarray(planes[0]), quality)
    picture = Image.merge("YCbCr", [Image.fromarray(plane) for plane in planes])
    kind -= GRAY
    if kind < CMYK:
        return _jpeg(_to_cmyk(picture.convert("RGB")), quality)
    kind -= CMYK
    if kind < PNG:
        buffer = io.BytesIO()
        picture.convert("RGB").save(buffer, "PNG", compress_level=1)  # higher levels are slow and gain little here
        return buffer.getvalue()
    kind -= PNG
    if kind < ROTATED:
        return _jpeg(picture.transpose(ORIENTATIONS[turn]), quality, subsampling, orientation=int(turn))
    return _jpeg(picture, quality, subsampling)


def _size(rng: np.random.Generator) -> tuple[int, int]:
    long = round(float(np.interp(rng.random(), LONG_SIDE_SHARES, LONG_SIDES)))
    short = round(long / float(np.interp(rng.random(), ASPECT_SHARES, ASPECTS)))
    return (short, long) if rng.random() < PORTRAITS else (long, short)


def _jpeg(picture: Image.Image, quality: int, subsampling: int = 0, orientation: int | None = None) -> bytes:
    exif = b""
    if orientation is not None:
        tags = Image.Exif()
        tags[ORIENTATION_TAG] = orientation
        exif = tags.tobytes()
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality, subsampling=subsampling, exif=exif)
    return buffer.getvalue()


def _to_cmyk(picture: Image.Image) -> Image.Image:
    """As a printer separates: the gray part of each colour goes to black ink, unlike in Pillow's own conversion."""
    rgb = np.asarray(picture, np.float32)
    brightest = rgb.max(axis=2, keepdims=True)
    ink = 255 * (brightest - rgb) / np.maximum(brightest, 1)
    return Image.fromarray(np.concatenate([ink, 255 - brightest], axis=2).round().astype(np.uint8), "CMYK")
