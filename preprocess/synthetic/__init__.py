"""A made-up data set: ten kinds of shapes, in image files of ImageNet's sizes and with its oddities.

    python -m preprocess.synthetic OUT [--train 2000] [--validation 500] [--classes 10] [--seed 0] [--workers N]

writes it as a directory of parquet in the layout of the hub's `ILSVRC/imagenet-1k`, which
`datasets.load_dataset("OUT")` and `python -m preprocess OUT SHARDS` open. The source
`synthetic:train=2000,validation=500,classes=10,seed=0` gives the same rows to `python -m preprocess`
with nothing written in between. At least 100 images a second and core, 0.1 MB each.

A row is a function of (seed, split, row) alone: neither the order of asking, the number of rows
nor the number of workers changes its bytes. Other versions of numpy or Pillow may.
"""

import hashlib
from dataclasses import dataclass, fields

import numpy as np
import PIL

from preprocess.sources.source import Row
from preprocess.synthetic import photograph, scene
from shards.common.errors import UsageError

PREFIX = "synthetic"
REVISION = 1  # to be raised with every change of the pictures: it is part of the fingerprint
SPLIT_STREAMS = {"train": 0, "validation": 1}
LABELS, PICTURES = 0, 1  # random streams of a split


@dataclass(frozen=True)
class SyntheticSource:
    """A source whose rows are drawn when asked for; offers what every source of `preprocess` offers.

    train, validation: rows of each split; classes: the first so many of scene.CLASS_NAMES.
    Raises UsageError for values that make no data set.
    """

    train: int = 2000
    validation: int = 500
    classes: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        for split in SPLIT_STREAMS:
            if self.num_rows(split) < 1:
                raise UsageError(f"synthetic images: {split}={self.num_rows(split)} must be at least 1")
        if not 2 <= self.classes <= len(scene.CLASS_NAMES):
            raise UsageError(
                f"synthetic images: classes={self.classes} must lie between 2 and {len(scene.CLASS_NAMES)}, "
                "the number of shapes there are"
            )
        if self.seed < 0:
            raise UsageError(f"synthetic images: seed={self.seed} must not be negative")

    @property
    def name(self) -> str:
        return f"{PREFIX}:" + ",".join(f"{field.name}={getattr(self, field.name)}" for field in fields(self))

    @property
    def fingerprint(self) -> str:
        """Hex digest of what decides the bytes, the versions of the libraries that make them included."""
        words = f"{self.name} revision {REVISION} numpy {np.__version__} pillow {PIL.__version__}"
        return hashlib.sha256(words.encode()).hexdigest()

    @property
    def class_names(self) -> tuple[str, ...]:
        return scene.CLASS_NAMES[: self.classes]

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(SPLIT_STREAMS)

    def num_rows(self, split: str) -> int:
        """Rows of the split. Raises UsageError for a split that there is not."""
        if split not in SPLIT_STREAMS:
            raise UsageError(f"{PREFIX} images have no split {split!r}, only {', '.join(SPLIT_STREAMS)}")
        return self.train if split == "train" else self.validation

    def label(self, split: str, row: int) -> int:
        """The class of a row: every `classes` rows in turn hold each class once, in random order."""
        turn, place = divmod(row, self.classes)
        return int(self._rng(split, LABELS, turn).permutation(self.classes)[place])

    def row(self, split: str, row: int) -> Row:
        """One encoded picture. Raises IndexError outside the split."""
        if not 0 <= row < self.num_rows(split):
            raise IndexError(f"row {row} of {split}, which has {self.num_rows(split)}")
        label = self.label(split, row)
        shape = scene.CLASS_NAMES[label]
        data = photograph.encoded(self._rng(split, PICTURES, row), shape)
        return Row(data=data, label=label, path=f"{split}_{row:08d}_{shape}.JPEG")

    def _rng(self, split: str, stream: int, item: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64((self.seed, SPLIT_STREAMS[split], stream, item)))


def parse(name: str) -> SyntheticSource:
    """The source that `synthetic:train=2000,validation=500,classes=10,seed=0` names; every key is optional.

    Raises UsageError for anything else after the colon.
    """
    prefix, _, text = name.partition(":")
    if prefix != PREFIX:
        raise UsageError(f"{name!r} does not begin with {PREFIX}:")
    allowed = [field.name for field in fields(SyntheticSource)]
    values: dict[str, int] = {}
    for word in filter(None, text.split(",")):
        key, _, value = word.partition("=")
        if key not in allowed or key in values or not (value.isascii() and value.isdigit()):
            raise UsageError(
                f"{name!r}: cannot use {word!r}; write {PREFIX}:KEY=NUMBER,... with {', '.join(allowed)} for keys"
            )
        values[key] = int(value)
    return SyntheticSource(**values)
