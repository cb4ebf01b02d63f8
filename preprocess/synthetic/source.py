"""The source of synthetic images: a row is a function of (seed, split, row) alone.

Neither the order of reading, the number of rows nor the number of workers changes its bytes. Other versions of numpy
or Pillow may.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import PIL

from preprocess.sources.source import PassedOver, Row
from preprocess.synthetic import photograph, scene
from shards.common.errors import UsageError

PREFIX = "synthetic"
REVISION = 1  # part of the fingerprint: raise it with every change of the pictures
SPLIT_STREAMS = {"train": 0, "validation": 1}
LABELS, PICTURES = 0, 1  # random streams of a split


@dataclass(frozen=True)
class SyntheticSource:
    """A source whose rows are drawn when they are read.

    `train`, `validation`: rows of each split; `classes`: how many of scene.CLASS_NAMES, from the first.
    Raises UsageError for values out of range.
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
        """Hex digest of everything that decides the bytes, the versions of numpy and Pillow included."""
        words = f"{self.name} revision {REVISION} numpy {np.__version__} pillow {PIL.__version__}"
        return hashlib.sha256(words.encode()).hexdigest()

    @property
    def class_names(self) -> tuple[str, ...]:
        return scene.CLASS_NAMES[: self.classes]

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(SPLIT_STREAMS)

    def num_rows(self, split: str) -> int:
        """The number of rows of a split. Raises UsageError for a split that does not exist."""
        if split not in SPLIT_STREAMS:
            raise UsageError(f"{PREFIX} images have no split {split!r}, only {', '.join(SPLIT_STREAMS)}")
        return self.train if split == "train" else self.validation

    def label(self, split: str, row: int) -> int:
        """The class of a row: each run of `classes` rows holds every class once, in random order."""
        turn, place = divmod(row, self.classes)
        return int(self._rng(split, LABELS, turn).permutation(self.classes)[place])

    def row(self, split: str, row: int) -> Row:
        """One image file with its label. Raises IndexError for a row outside the split."""
        if not 0 <= row < self.num_rows(split):
            raise IndexError(f"row {row} of {split}, which has {self.num_rows(split)}")
        label = self.label(split, row)
        shape = scene.CLASS_NAMES[label]
        data = photograph.encoded(self._rng(split, PICTURES, row), shape)
        return Row(data=data, label=label, path=f"{split}_{row:08d}_{shape}.JPEG")

    def passed_over(self, split: str) -> tuple[PassedOver, ...]:
        """Nothing: there are no files."""
        return ()

    @property
    def keep(self) -> tuple[str, ...]:
        return ()

    def columns(self, split: str, rows: Sequence[int]) -> dict[str, Any]:
        """Nothing: there are no columns."""
        return {}

    def _rng(self, split: str, stream: int, item: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64((self.seed, SPLIT_STREAMS[split], stream, item)))


def parse(name: str) -> SyntheticSource:
    """The source that `synthetic:train=2000,validation=500,classes=10,seed=0` names; every key is optional.

    Raises UsageError for anything else.
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
