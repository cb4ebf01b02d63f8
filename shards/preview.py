"""A picture of what the loader feeds: a grid of one batch, each image above its class name."""

from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from shards.common.atomic import refuse_unwritable, replacing
from shards.common.errors import UsageError
from shards.dataset import Split
from shards.sampling.colour import Augment
from shards.sampling.crops import Crop

CAPTION = 16
GAP = 4
# Smaller images are drawn this large: on a screen 32 pixels show nothing, and leave no room for a caption.
LEAST = 128


ENDING = ".png"


def check_output(output: Path) -> None:
    """Raises UsageError for a file that is not named as a PNG, or cannot be written."""
    if output.suffix.lower() != ENDING:
        raise UsageError(f"{output} does not end in {ENDING}: the picture is a PNG")
    refuse_unwritable("--output", output)


def preview(
    split: Split,
    output: Path,
    *,
    train: bool,
    count: int,
    size: int,
    resize: int | None = None,
    crop: Crop | None = None,
    padding: int = 0,
    flip: bool | None = None,
    augment: Augment | Literal["none"] = "none",
    seed: int = 0,
    epoch: int = 0,
) -> int:
    """Draws the first `count` samples of an epoch as a model gets them, without the normalisation.

    train: order, crops and flips of training; otherwise the centre crop, in the order of the split. size, resize, crop,
    padding, flip, augment: as for `Loader`.
    Writes a PNG to `output`, whatever its name ends in. Returns how many images it shows: at most those of the split.
    """
    if count < 1:
        raise UsageError(f"count must be at least 1, not {count}")
    from shards.loader import Loader  # DALI takes a second to load, and is needed for this command alone

    count = min(count, len(split))
    with Loader(
        split,
        batch_size=count,
        train=train,
        size=size,
        resize=resize,
        crop=crop,
        padding=padding,
        flip=flip,
        augment=augment,
        seed=seed,
        dtype="uint8",
        drop_last=False,
    ) as loader:
        loader.set_epoch(epoch)
        images, labels = next(iter(loader))
        pixels, classes = images.permute(0, 2, 3, 1).numpy().copy(), labels.tolist()
    picture = grid(pixels, [split.class_names[label] for label in classes])
    with replacing(output) as file:
        picture.save(file, "PNG")
    return count


def grid(images: npt.NDArray[np.uint8], captions: list[str]) -> Image.Image:
    """Tiles `images` (n, size, size, 3) into a grid about twice as wide as high, with a caption under each.

    Tiny images are enlarged by a whole number, so that each of their pixels is a square.
    """
    enlarged = -(-LEAST // images.shape[1])
    images = images.repeat(enlarged, axis=1).repeat(enlarged, axis=2)
    count, size = len(images), images.shape[1]
    columns = min(count, max(1, round((2 * count) ** 0.5)))
    rows = -(-count // columns)
    tile = (size + GAP, size + CAPTION + GAP)
    sheet = Image.new("RGB", (columns * tile[0] + GAP, rows * tile[1] + GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for i, (pixels, caption) in enumerate(zip(images, captions, strict=True)):
        left, top = GAP + i % columns * tile[0], GAP + i // columns * tile[1]
        sheet.paste(Image.fromarray(pixels), (left, top))
        text = caption.split(",")[0]
        while len(text) > 1 and draw.textlength(text, font) > tile[0] - GAP:
            text = text[:-1]
        draw.text((left, top + size + 1), text, fill="black", font=font)
    return sheet
