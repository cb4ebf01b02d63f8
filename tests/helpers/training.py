"""Batches and small data sets for the tests of training."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from shards.format.index import Index
from shards.format.layout import INDEX, split_dir
from shards.format.manifest import FORMAT_VERSION, Manifest, Settings, SplitInfo
from shards.format.tar import Sample, write_shard


class FixedBatches:
    """A loader that gives the same random batches each epoch: `sizes` are the images of each."""

    def __init__(self, sizes: list[int], classes: int = 10, side: int = 16, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.batches = [
            (
                torch.randn(size, 3, side, side, generator=generator),
                torch.randint(classes, (size,), generator=generator),
            )
            for size in sizes
        ]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(self.batches)


def coloured_jpeg(label: int, side: int, seed: int) -> bytes:
    """A JPEG that shows its label by its brightness, under noise."""
    noise = np.random.default_rng(seed).normal(60 * label + 40, 20, (side, side, 3))
    out = io.BytesIO()
    Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(out, "JPEG", quality=90)
    return out.getvalue()


def write_dataset(root: Path, sizes: dict[str, int], classes: int = 3, side: int = 16) -> Path:
    """A finished data set in `root` with the given number of images in each split; labels take turns."""
    splits = {}
    for name, size in sizes.items():
        samples = [
            Sample(f"{i:08d}", coloured_jpeg(i % classes, side, seed=i), i % classes, side, side) for i in range(size)
        ]
        info, index = write_shard(root, name, 0, samples)
        Index.concatenate([index]).write(split_dir(root, name) / INDEX)
        splits[name] = SplitInfo(samples=size, rejects=0, shards=(info,))
    Manifest(
        format_version=FORMAT_VERSION,
        program_version="0",
        source="test",
        fingerprint="test",
        class_names=tuple(f"class {i}" for i in range(classes)),
        settings=Settings(short_side=side),
        splits=splits,
    ).write(root)
    return root
