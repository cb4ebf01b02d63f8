"""What peers with torch's DataLoader share: torchvision's transforms, and worker processes that end with the turn."""

import contextlib
import gc
import io
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any

import torch
from PIL import Image
from torch.utils.data import DataLoader, RandomSampler
from torchvision.transforms import v2

from benchmarks.measure.result import Setting
from benchmarks.measure.settings import BatchSpec
from benchmarks.processes.task import Batch, Peer, PeerTask
from shards.decode import MEAN, STD
from shards.format.manifest import Settings

PREFETCH = 2  # DataLoader's own default: batches that each worker keeps ready
# Samples in one epoch, so long that no gap between epochs counts against a small data set.
ENDLESS = 1 << 40
ENDLESS_LISTED = 1 << 18  # for systems that write down the order of an epoch beforehand


def transform(batch: BatchSpec, stored: Settings) -> v2.Compose:
    """torchvision's transforms (v2) for uint8 tensors (3, height, width); `batches_of` undoes their layout of uint8."""
    if batch.crop == "rrc":
        steps: list[Any] = [v2.RandomResizedCrop(batch.size, antialias=True)]
    else:
        # Resize returns images of the right size unchanged, but takes time for it.
        steps = [] if stored.short_side == batch.resize else [v2.Resize(batch.resize, antialias=True)]
        steps.append(v2.RandomCrop(batch.size))
    steps.append(v2.RandomHorizontalFlip())
    if batch.dtype == "float32":
        # Decoders give views of interleaved pixels, on which Normalize takes four times as long.
        planes = v2.Lambda(torch.Tensor.contiguous)
        steps += [planes, v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD, inplace=True)]
    else:
        steps.append(v2.Lambda(_interleaved))
    return v2.Compose(steps)


def _interleaved(pixels: torch.Tensor) -> torch.Tensor:
    """(3, height, width) as (height, width, 3), the decoder's layout in memory: stacking a batch is a plain copy."""
    return pixels.permute(1, 2, 0).contiguous()


def pil_transform(batch: BatchSpec, stored: Settings) -> v2.Compose:
    """The same for PIL images: cropped and flipped by Pillow, then a tensor."""
    steps = list(transform(batch, stored).transforms)
    flip = next(i for i, step in enumerate(steps) if isinstance(step, v2.RandomHorizontalFlip))
    return v2.Compose([*steps[: flip + 1], v2.PILToTensor(), *steps[flip + 1 :], v2.ToPureTensor()])


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


def loading_peer(task: PeerTask, make: Callable[[], Any], settings: Mapping[str, Setting]) -> Peer:
    """A peer whose batches come from the loader that `make` makes, epoch after epoch, with worker processes."""
    settings = {**settings, "prefetch_factor": PREFETCH, "dct": "accurate"}
    return Peer(lambda: batches_of(make), settings, depth=PREFETCH * task.threads, stride=max(1, task.threads))


def worker_options(workers: int) -> dict[str, Any]:
    """A DataLoader's options for `workers` processes that stay alive (0: none)."""
    prefetch = PREFETCH if workers else None
    return {"num_workers": workers, "persistent_workers": workers > 0, "prefetch_factor": prefetch}


def random_loader(dataset: Any, batch: BatchSpec, workers: int) -> "DataLoader[Any]":
    """Endless batches of a map-style data set in random order, made by `workers` processes (0: none)."""
    sampler = RandomSampler(dataset, num_samples=ENDLESS, generator=torch.Generator().manual_seed(batch.seed))
    return DataLoader(dataset, batch.batch_size, sampler=sampler, drop_last=True, **worker_options(workers))


@contextlib.contextmanager
def batches_of(make: Callable[[], Any]) -> Iterator[Iterator[Batch]]:
    """The batches of the loader that `make` makes, epoch after epoch. Its workers end with the block."""
    stream = _epochs(make)
    try:
        yield stream
    finally:
        stream.close()  # drops the only reference to the loader, which ends its workers
        gc.collect()  # also of a loader in a cycle of references, as LitData's: its workers took memory until the end


def _epochs(make: Callable[[], Any]) -> Generator[Batch]:
    loader = make()
    while True:
        for images, labels in loader:
            yield images.permute(0, 3, 1, 2) if images.shape[-1] == 3 else images, labels
