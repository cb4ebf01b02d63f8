"""Draws the pictures of the synthetic data set: one large shape of a class on a natural-looking background.

Backgrounds are built from fields whose amplitude falls as 1/f, as it does in photographs (Field,
"Relations between the statistics of natural images and the response properties of cortical cells",
1987), cut by soft edges into regions of different colour. The shape varies in place, scale,
rotation, colour and contrast of either sign, so that the mean colour says nothing about the class.

The fields are made once in a process by FFT; a picture then costs crops of them and a few dozen
array operations on its pixels.
"""

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Plane = npt.NDArray[np.floating]  # float32 throughout; numpy's stubs lose that in hypot and abs
Shape = Callable[[Plane, Plane], Plane]

FIELD_SIDE = 1024
MAX_SIDE = 2 * FIELD_SIDE
FIELD_SLOPES = (0.9, 1.1, 1.4)  # of the amplitude spectrum: rough, typical and smooth textures
SMOOTH_SLOPE = 2.0  # of the fields that lay out regions and colours
SQRT3 = math.sqrt(3.0)


def _disc(u: Plane, v: Plane) -> Plane:
    return np.hypot(u, v) - 1.0


def _ring(u: Plane, v: Plane) -> Plane:
    return np.abs(np.hypot(u, v) - 0.8) - 0.24


def _square(u: Plane, v: Plane) -> Plane:
    return np.maximum(np.abs(u), np.abs(v)) - 0.88


def _triangle(u: Plane, v: Plane) -> Plane:
    return np.maximum(-v, (SQRT3 * np.abs(u) + v) / 2) - 0.58


def _cross(u: Plane, v: Plane) -> Plane:
    a, b = np.abs(u), np.abs(v)
    return np.maximum(np.maximum(a, b) - 1.1, np.minimum(a, b) - 0.3)


def _star(u: Plane, v: Plane) -> Plane:
    """A pentagram: the points that lie outside at most one of the five lines that draw it."""
    largest: Plane = np.full_like(u, -np.inf)
    second: Plane = largest
    for k in range(5):
        angle = 2 * math.pi * k / 5
        line = math.cos(angle) * u + math.sin(angle) * v - 0.45
        second = np.maximum(second, np.minimum(largest, line))
        largest = np.maximum(largest, line)
    return second


def _crescent(u: Plane, v: Plane) -> Plane:
    bite: Plane = 0.9 - np.hypot(u - 0.6, v)
    return np.maximum(np.hypot(u, v) - 1.1, bite)


def _wave(u: Plane, period: float) -> Plane:
    """Distance to the nearest multiple of `period`, less a quarter of it: negative on every second strip."""
    return np.abs(u - period * np.round(u / period)) - period / 4


def _stripes(u: Plane, v: Plane) -> Plane:
    return np.maximum(_wave(u, 0.6), np.hypot(u, v) - 1.0)


def _checker(u: Plane, v: Plane) -> Plane:
    a, b = _wave(u - 0.25, 1.0), _wave(v - 0.25, 1.0)
    return np.maximum(np.maximum(np.minimum(a, b), -np.maximum(a, b)), np.maximum(np.abs(u), np.abs(v)) - 1.0)


def _dots(u: Plane, v: Plane) -> Plane:
    period = 0.66
    dot = np.hypot(u - period * np.round(u / period), v - period * np.round(v / period)) - 0.2
    return np.maximum(dot, np.maximum(np.abs(u), np.abs(v)) - 1.0)


# Signed distances, negative inside, in units of the shape's radius; all fit in the square of half side EXTENT.
SHAPES: Mapping[str, Shape] = {
    "disc": _disc,
    "ring": _ring,
    "square": _square,
    "triangle": _triangle,
    "cross": _cross,
    "star": _star,
    "crescent": _crescent,
    "stripes": _stripes,
    "checker": _checker,
    "dots": _dots,
}
CLASS_NAMES = tuple(SHAPES)
EXTENT = 1.5
TILT = math.radians(20)


@dataclass(frozen=True)
class Look:
    """How detailed a picture is: what decides the size of its JPEG.

    detail is the standard deviation of the background's texture, noise that of the sensor's white
    noise, both in grey levels.
    """

    detail: float
    noise: float


def draw(rng: np.random.Generator, shape: str, width: int, height: int, look: Look) -> npt.NDArray[np.uint8]:
    """A picture of the class `shape` as (3, height, width) uint8: the planes Y, Cb and Cr as JFIF defines them.

    width is at most MAX_SIDE.
    """
    planes = _background(rng, width, height, look)
    _paint(rng, planes, SHAPES[shape], look)
    planes[0] += look.noise * _crop(rng, _white(), width, height)
    np.clip(planes, 0, 255, out=planes)
    return planes.astype(np.uint8)


def _background(rng: np.random.Generator, width: int, height: int, look: Look) -> Plane:
    """(3, height, width) float32: texture, two soft-edged regions, slow drifts of colour."""
    planes = np.empty((3, height, width), np.float32)
    texture = _crop(rng, _fields()[rng.integers(len(FIELD_SLOPES))], width, height)
    np.multiply(texture, look.detail, out=planes[0])
    planes[0] += rng.uniform(60, 120)
    hue = rng.normal(0, 10, 2)
    planes[1], planes[2] = 128 + hue[0], 128 + hue[1]
    for _ in range(2):
        layout = _crop(rng, _smooth(), width, height)
        layout -= rng.uniform(-0.6, 0.6)
        layout *= rng.uniform(8, 80)  # the steeper, the sharper the edge between the two regions
        np.clip(layout, -1, 1, out=layout)
        for plane, step in zip(planes, (rng.normal(0, 14), rng.normal(0, 7), rng.normal(0, 7)), strict=True):
            plane += np.float32(step) * layout
    return planes


def _paint(rng: np.random.Generator, planes: Plane, shape: Shape, look: Look) -> None:
    """Lays the shape over the planes, in place: textured, shaded from one side, of a contrasting brightness."""
    height, width = planes.shape[1:]
    short = min(width, height)
    radius = short * rng.uniform(0.32, 0.42)
    centre_x = width / 2 + short * rng.uniform(-0.09, 0.09)
    centre_y = height / 2 + short * rng.uniform(-0.09, 0.09)
    reach = EXTENT * radius
    left, right = max(0, int(centre_x - reach)), min(width, math.ceil(centre_x + reach))
    top, bottom = max(0, int(centre_y - reach)), min(height, math.ceil(centre_y + reach))
    x = (np.arange(left, right, dtype=np.float32) + 0.5 - centre_x)[None, :] / radius
    y = (np.arange(top, bottom, dtype=np.float32) + 0.5 - centre_y)[:, None] / radius
    x, y = x.astype(np.float32), y.astype(np.float32)
    angle = rng.uniform(-TILT, TILT)
    u = math.cos(angle) * x + math.sin(angle) * y
    v = math.cos(angle) * y - math.sin(angle) * x
    cover = shape(u, v)
    cover *= -radius  # pixels of depth: the edge is one pixel wide
    cover += 0.5
    np.clip(cover, 0, 1, out=cover)

    window = planes[:, top:bottom, left:right]
    ground = float(planes[0].mean())
    contrast = rng.uniform(75, 120)
    base = ground + contrast
    body = _crop(rng, _fields()[rng.integers(len(FIELD_SLOPES))], right - left, bottom - top)
    body *= 0.6 * look.detail
    light = rng.uniform(0, 2 * math.pi)
    body += np.float32(10 * math.cos(light)) * x + np.float32(10 * math.sin(light)) * y
    body += base
    for plane, level in zip(window, (body, *(128 + rng.normal(0, 28, 2))), strict=True):
        plane += cover * (level - plane)


def _crop(rng: np.random.Generator, field: Plane, width: int, height: int) -> Plane:
    """A random window of a periodic field, mirrored at random; always a fresh array.

    The field's columns are stored twice over, so a row of a window is one piece of memory.
    """
    left = rng.integers(2 * FIELD_SIDE - width + 1)
    rows = (np.arange(height) + rng.integers(FIELD_SIDE)) % FIELD_SIDE
    if rng.random() < 0.5:
        rows = rows[::-1]
    window = field[:, left : left + width].take(rows, axis=0)
    return window if rng.random() < 0.5 else window[:, ::-1]


@functools.cache
def _fields() -> Plane:
    return np.stack([_noise(slope, stream) for stream, slope in enumerate(FIELD_SLOPES)])


@functools.cache
def _smooth() -> Plane:
    return _noise(SMOOTH_SLOPE, len(FIELD_SLOPES))


@functools.cache
def _white() -> Plane:
    return _noise(0.0, len(FIELD_SLOPES) + 1)


def _noise(slope: float, stream: int) -> Plane:
    """A periodic (FIELD_SIDE, 2 * FIELD_SIDE) float32 field of mean 0 and deviation 1 with amplitude 1 / f**slope."""
    rng = np.random.Generator(np.random.PCG64(stream))
    spectrum = np.fft.rfft2(rng.standard_normal((FIELD_SIDE, FIELD_SIDE)))
    fy, fx = np.fft.fftfreq(FIELD_SIDE)[:, None], np.fft.rfftfreq(FIELD_SIDE)[None, :]
    frequency = np.hypot(fx, fy)
    frequency[0, 0] = np.inf if slope else 1.0
    field = np.fft.irfft2(spectrum / frequency**slope, s=(FIELD_SIDE, FIELD_SIDE))
    field -= field.mean()
    return np.tile((field / field.std()).astype(np.float32), (1, 2))
