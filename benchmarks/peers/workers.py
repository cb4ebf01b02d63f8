"""What the contenders with torch's DataLoader share: a transform of torchvision's, and worker processes that end."""

import contextlib
import io
from collections.abc import Iterator
from typing import Any

import torch
from PIL import Image
from torch.utils.data import DataLoader, RandomSampler
from torchvision.transforms import v2

from benchmarks.peers.naive import ENDLESS, PREFETCH, Batch, Recipe
from shards.decode import MEAN, STD
from shards.format.manifest import Settings


def transform(recipe: Recipe, stored: Settings) -> v2.Compose:
    """torchvision's transforms (v2) for uint8 tensors (3, height, width), to be followed by `planes_first`."""
    if recipe.crop == "rrc":
        steps: list[Any] = [v2.RandomResizedCrop(recipe.size, antialias=True)]
    else:
        # Resize returns images that have the size already as they are, but not for nothing.
        steps = [] if stored.short_side == recipe.resize else [v2.Resize(recipe.resize, antialias=True)]
        steps.append(v2.RandomCrop(recipe.size))
    steps.append(v2.RandomHorizontalFlip())
    if recipe.dtype == "float32":
        # Decoders give views of interleaved pixels, on which Normalize takes four times as long.
        planes = v2.Lambda(torch.Tensor.contiguous)
        steps += [planes, v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD, inplace=True)]
    else:
        steps.append(v2.Lambda(_interleaved))
    return v2.Compose(steps)


def _interleaved(pixels: torch.Tensor) -> torch.Tensor:
    """(3, height, width) as (height, width, 3): as decoders have it in memory, so that it is stacked without a turn."""
    return pixels.permute(1, 2, 0).contiguous()


def planes_first(images: torch.Tensor) -> torch.Tensor:
    """A batch of what `transform` makes as (n, 3, height, width)."""
    return images.permute(0, 3, 1, 2) if images.dtype == torch.uint8 else images


def pil_transform(recipe: Recipe, stored: Settings) -> v2.Compose:
    """The same, for PIL images: cropped and flipped by Pillow, then a tensor."""
    steps = list(transform(recipe, stored).transforms)
    place = next(i for i, step in enumerate(steps) if isinstance(step, v2.RandomHorizontalFlip))
    return v2.Compose([*steps[: place + 1], v2.PILToTensor(), *steps[place + 1 :], v2.ToPureTensor()])


def normalised(images: torch.Tensor) -> torch.Tensor:
    """uint8 (n, 3, height, width) with any strides, as float32 in two passes: the fastest of torch's ways on a CPU."""
    scale = 1 / (255 * torch.tensor(STD)[:, None, None])
    shift = -(torch.tensor(MEAN) / torch.tensor(STD))[:, None, None]
    return images.to(torch.float32, memory_format=torch.contiguous_format).mul_(scale).add_(shift)


def pil_image(data: bytes) -> Image.Image:
    """An encoded image, decoded by Pillow."""
    return Image.open(io.BytesIO(data)).convert("RGB")


def torch_pixels(data: Any, stored: Settings) -> torch.Tensor:
    """An encoded image (bytes or a uint8 tensor), decoded by torchvision: uint8 (3, height, width); PPMs by Pillow."""
    from torchvision.io import ImageReadMode, decode_jpeg

    if stored.encoding == "raw":
        pixels: torch.Tensor = v2.functional.pil_to_tensor(pil_image(bytes(data)))
        return pixels
    tensor = data if isinstance(data, torch.Tensor) else torch.frombuffer(bytearray(data), dtype=torch.uint8)
    decoded: torch.Tensor = decode_jpeg(tensor, mode=ImageReadMode.RGB)
    return decoded


@contextlib.contextmanager
def random_batches(dataset: Any, recipe: Recipe, workers: int) -> Iterator[Iterator[Batch]]:
    """Batches of a map-style data set in random order without end, from `workers` processes."""
    sampler = RandomSampler(dataset, num_samples=ENDLESS, generator=torch.Generator().manual_seed(recipe.seed))
    loader = DataLoader(
        dataset,
        batch_size=recipe.batch_size,
        sampler=sampler,
        num_workers=workers,
        persistent_workers=workers > 0,
        drop_last=True,
        prefetch_factor=PREFETCH if workers else None,
    )
    with ending(loader) as stream:
        del loader
        yield stream


@contextlib.contextmanager
def ending(loader: Any) -> Iterator[Iterator[Batch]]:
    """The batches of `loader`, epoch after epoch; its workers end with the block if nobody else holds it."""
    stream = _epochs(loader)
    del loader
    try:
        yield stream
    finally:
        stream.close()


def _epochs(loader: Any) -> Any:
    while True:
        for images, labels in loader:
            yield planes_first(images), labels
