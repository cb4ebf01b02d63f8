"""Image folders: SOURCE/<split>/<class>/*.jpg, the classes in alphabetical order."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from preprocess.sources.source import HIDDEN_LABEL, StoredSource, choose, stored_source
from shards.common.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import datasets

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".jp2", ".ppm", ".avif")
NO_LAYOUT = (
    "{} is a directory, but holds neither parquet files (data/train-*.parquet), nor a data set saved with "
    "save_to_disk, nor images in folders <split>/<class>/*.jpg"
)


@dataclass(frozen=True, eq=False)
class FolderImages:
    """The image files of one split. Their names are one string and an array of ends, which pickle small and fast."""

    root: Path
    names: bytes
    ends: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ends)

    def name(self, row: int) -> str:
        """The path of a file relative to the root: "<split>/<class>/<file>"."""
        start = self.ends[row - 1] if row else 0
        return os.fsdecode(self.names[start : self.ends[row]])

    def lengths(self) -> npt.NDArray[np.int64]:
        return self.sizes

    def read(self, row: int) -> tuple[bytes, str]:
        name = self.name(row)
        return (self.root / name).read_bytes(), name

    def table(self) -> "datasets.Dataset":
        import datasets

        paths = [str(self.root / self.name(row)) for row in range(len(self))]
        return datasets.Dataset.from_dict({"image": paths}).cast_column("image", datasets.Image())


def open_folder(name: str, root: Path, splits: "Sequence[str] | None") -> StoredSource:
    """Scans an image folder.

    Splits without class directories have no labels, and are left out unless `splits` names them. Raises UsageError for
    other layouts and for splits whose classes differ.
    """
    there = [entry.name for entry in _directories(root)]
    chosen = there if splits is None else choose(name, there, splits)
    classes = {split: [entry.name for entry in _directories(root / split)] for split in chosen}
    labelled = {split: names for split, names in classes.items() if names}
    if not labelled:
        raise UsageError(NO_LAYOUT.format(name))
    first, class_names = next(iter(labelled.items()))
    for split, names in labelled.items():
        if odd := sorted(set(names) ^ set(class_names)):
            raise UsageError(
                f"the classes of {name} differ between {first} and {split}: "
                f"{', '.join(odd[:5])}{', ...' if len(odd) > 5 else ''} in one only; name the splits with --splits"
            )
    images: dict[str, FolderImages] = {}
    labels: dict[str, npt.NDArray[np.int64]] = {}
    for split in chosen:
        images[split], labels[split] = _scan(root, split, class_names if split in labelled else None)
    if not any(map(len, images.values())):
        raise UsageError(NO_LAYOUT.format(name))
    return stored_source(name, class_names, images, labels, hidden_allowed=splits is None)


def _scan(root: Path, split: str, class_names: "Sequence[str] | None") -> tuple[FolderImages, npt.NDArray[np.int64]]:
    names: list[bytes] = []
    sizes: list[int] = []
    labels: list[int] = []
    passed_over = 0
    folders = (
        [(HIDDEN_LABEL, split)] if class_names is None else [(i, f"{split}/{c}") for i, c in enumerate(class_names)]
    )
    for label, folder in folders:
        with os.scandir(root / folder) as entries:
            files = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
        for entry in files:
            if not entry.name.lower().endswith(ENDINGS) or not entry.is_file():
                passed_over += 1
                continue
            names.append(os.fsencode(f"{folder}/{entry.name}"))
            sizes.append(entry.stat().st_size)
            labels.append(label)
    if passed_over and names:
        print(f"{root / split}: passing over {passed_over:,} files that do not end like images", file=sys.stderr)
    ends = np.cumsum([0, *map(len, names)])[1:]
    return FolderImages(root, b"".join(names), ends, np.array(sizes, np.int64)), np.array(labels, np.int64)


def _directories(root: Path) -> list[os.DirEntry[str]]:
    with os.scandir(root) as entries:
        return sorted((e for e in entries if e.is_dir() and not e.name.startswith(".")), key=lambda entry: entry.name)
