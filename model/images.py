"""Prepares image files as for evaluation: upright, RGB, Resize, CenterCrop, normalised."""

import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.ExifTags import Base
from torch import Tensor
from torchvision.transforms import InterpolationMode, functional

from model.weights import About
from shards.common.arguments import as_path, shown
from shards.common.errors import ShardfeedError, UsageError


def open_image(path: str | Path) -> Image.Image:
    """The image in a file of any format that Pillow reads: upright by EXIF, RGB, transparency over white, 16 bits as 8.

    Raises UsageError where there is no such file, ShardfeedError where it holds no image or a damaged one.
    """
    path = as_path("the file of an image", path)
    if not path.is_file():
        raise UsageError(f"{path} is not a file: give the path of an image")
    try:
        # Pillow warns of large sizes and of damaged metadata, which are no matter of the picture.
        with warnings.catch_warnings(action="ignore"), Image.open(path) as opened:
            opened.load()
            image: Image.Image = ImageOps.exif_transpose(opened) if _has_whole_exif(opened) else opened
            if image.mode.startswith("I"):  # Pillow would clip values above 255
                image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
            if image.has_transparency_data:
                visible = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", visible.size, "white"), visible)
            return image.convert("RGB")
    except UnidentifiedImageError:
        raise ShardfeedError(f"{path} is not an image that Pillow can read") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ShardfeedError(f"{path} is damaged: {error}") from error


def _has_whole_exif(image: Image.Image) -> bool:
    """Whether the EXIF of an image can be read; a conversion leaves one with other EXIF as it lies, too."""
    try:
        with warnings.catch_warnings(action="error"):
            tags = Image.Exif()  # not image.getexif(), which was read, with a warning, when the image was opened
            tags.load(image.info.get("exif", b""))
            tags.get(Base.Orientation)
    except Exception:  # Pillow's parser raises errors of any kind
        return False
    return True


def to_tensor(image: Image.Image, about: About) -> Tensor:
    """An RGB image as (3, size, size) float32, by torchvision's Resize, CenterCrop, ToTensor and Normalize.

    Raises UsageError for anything but an RGB image.
    """
    if not isinstance(image, Image.Image) or image.mode != "RGB":
        raise UsageError(f"image must be an RGB image of Pillow's, as open_image(path) gives, not {shown(image)}")
    resized = functional.resize(image, [about.resize], InterpolationMode(about.interpolation))
    cropped = functional.center_crop(resized, [about.size, about.size])
    pixels = torch.from_numpy(np.array(cropped)).permute(2, 0, 1).float() / 255
    normalised: Tensor = functional.normalize(pixels, list(about.mean), list(about.std))
    return normalised
