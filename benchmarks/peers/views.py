"""Several views of each image: this project's loader, the same loader once a view, and torchvision on PIL images.

`views` is the name of a preset (shards/sampling/presets.py); without `colour`, crops and flips alone. `way`:

    once          this loader: one decode, all views; `device` and `decode` are arguments of it
    each          this loader once a view, eight batches of each in turn; an image counts when all of its views came
    torchvision   an image folder of the stored images, its v2 transforms on PIL images in DataLoader workers; Pillow
                  blurs, as in the repositories of MoCo v3 and DINO, which is faster than torchvision's blur
"""

import contextlib
import dataclasses
import itertools
import random
from collections.abc import Callable, Generator, Iterator
from typing import Any

import torch
from PIL import Image, ImageFilter
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from benchmarks.measure.harness import nothing
from benchmarks.measure.result import Setting
from benchmarks.peers.image_folder import write
from benchmarks.peers.shardfeed import chosen
from benchmarks.processes.dataloader import PREFETCH, random_loader
from benchmarks.processes.task import Peer, PeerTask
from shards import Colour, Loader, View
from shards.decode import MEAN, STD
from shards.feed.loop import Depths
from shards.sampling.presets import PRESETS
from shards.sampling.views import single

# Batches of one view before the next view's, where the loader runs once a view.
IN_TURN = 8


def peer(task: PeerTask) -> Peer:
    """Batches are (list of images, labels)."""
    views = single(PRESETS[task.options["views"]]())  # type: ignore[index]  # the command has checked it
    if not task.options["colour"]:
        views = tuple(dataclasses.replace(view, colour=Colour()) for view in views)
    settings: dict[str, Setting] = {"views": len(views), "dct": "accurate"}
    if task.options["way"] == "torchvision":
        folder = ImageFolder(str(write(task)), _Views(views, task.batch.dtype))
        return Peer(
            lambda: _all(lambda: random_loader(folder, task.batch, task.threads)),
            {**settings, "prefetch_factor": PREFETCH},
            depth=PREFETCH * task.threads,
            stride=max(1, task.threads),
            images=_count(task, views),
        )
    ours = Depths.decoding + Depths.ready
    if task.options["way"] == "once":
        with _loader(task, views) as loader:
            settings |= chosen(loader._feed.config.graph)
        return Peer(
            lambda: _all(lambda: _loader(task, views)),
            settings,
            depth=ours,
            images=_count(task, views),
            sync=torch.cuda.synchronize if task.options.get("device") == "gpu" else nothing,
        )
    share = 1 / len(views)
    return Peer(
        lambda: _in_turn(task, views),
        settings,
        depth=ours,
        stride=IN_TURN * len(views),
        images=lambda batch: share * len(batch[1]),
    )


def _count(task: PeerTask, views: tuple[View, ...]) -> Callable[[Any], int]:
    wanted = [(task.batch.batch_size, 3, view.size, view.size) for view in views]

    def images(batch: Any) -> int:
        """Images of a batch. Raises ValueError for one of another kind."""
        if [tuple(each.shape) for each in batch[0]] != wanted:
            raise ValueError(f"the views have the shapes {[tuple(each.shape) for each in batch[0]]} and not {wanted}")
        return len(batch[1])

    return images


def _loader(task: PeerTask, views: tuple[View, ...]) -> Loader:
    return Loader(
        task.open_split(),
        batch_size=task.batch.batch_size,
        train=True,
        views=views,
        seed=task.batch.seed,
        dtype=task.batch.dtype,
        threads=task.threads,
        **{name: task.options[name] for name in ("device", "decode") if name in task.options},  # type: ignore[arg-type]
    )


@contextlib.contextmanager
def _all(make: Callable[[], Any]) -> Iterator[Iterator[Any]]:
    """The batches of what `make` makes, epoch after epoch; its threads or workers end with the block."""
    stream = _epochs(make)
    try:
        yield stream
    finally:
        stream.close()


def _epochs(make: Callable[[], Any]) -> Generator[Any]:
    loader = make()
    while True:
        yield from loader


@contextlib.contextmanager
def _in_turn(task: PeerTask, views: tuple[View, ...]) -> Iterator[Iterator[Any]]:
    with contextlib.ExitStack() as stack:
        loaders = [stack.enter_context(_all(lambda view=view: _loader(task, (view,)))) for view in views]  # type: ignore[misc]
        yield (next(loader) for loader in itertools.cycle(loaders) for _ in range(IN_TURN))


class _Views:
    """All views of a PIL image, a list of tensors (3, size, size)."""

    def __init__(self, views: tuple[View, ...], dtype: str) -> None:
        end: list[Any] = [v2.PILToTensor(), v2.ToPureTensor()]
        if dtype == "float32":
            end += [v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD, inplace=True)]
        self.transforms = [v2.Compose([*_steps(view), *end]) for view in views]

    def __call__(self, image: Image.Image) -> list[torch.Tensor]:
        return [transform(image) for transform in self.transforms]


def _steps(view: View) -> list[Any]:
    """torchvision's transforms for a view."""
    filters = {"bilinear": v2.InterpolationMode.BILINEAR, "bicubic": v2.InterpolationMode.BICUBIC}
    colour = view.colour
    steps: list[Any] = [
        v2.RandomResizedCrop(view.size, view.scale, view.ratio, filters[view.interpolation]),
        v2.RandomHorizontalFlip(0.5 if view.flip else 0.0),
    ]
    if colour.brightness:
        jitter = v2.ColorJitter(colour.brightness, colour.contrast, colour.saturation, colour.hue)
        steps.append(v2.RandomApply([jitter], colour.jitter))
    if colour.gray:
        steps.append(v2.RandomGrayscale(colour.gray))
    if colour.blur:
        steps.append(v2.RandomApply([_PillowBlur(colour.sigma)], colour.blur))
    if colour.solarize:
        steps.append(v2.RandomSolarize(128, colour.solarize))
    return steps


class _PillowBlur(torch.nn.Module):
    def __init__(self, sigma: tuple[float, float]) -> None:
        super().__init__()
        self.sigma = sigma

    def forward(self, image: Image.Image) -> Image.Image:
        return image.filter(ImageFilter.GaussianBlur(random.uniform(*self.sigma)))
