"""The options of `python -m preprocess`: the one place of their defaults, light to import."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from shards.errors import UsageError
from shards.manifest import Settings


@dataclass(frozen=True)
class Options:
    """Turns a data set of images into WebDataset shards with DALI indices.

    What is finished already is kept: the same command, started again, goes on.
    """

    source: Annotated[str, tyro.conf.Positional]
    """A data set on the hub (ILSVRC/imagenet-1k), a directory of parquet in the hub's layout, what save_to_disk wrote,
    an image folder (SOURCE/<split>/<class>/*.jpg), or synthetic:train=2000,validation=500,classes=10,seed=0."""
    out: Annotated[Path, tyro.conf.Positional]
    """Directory for the shards."""
    splits: tuple[str, ...] | None = None
    """Splits to convert; all that have labels if not given."""
    image_column: str = "image"
    """Column of the images, where the source has columns."""
    label_column: str = "label"
    """Column of the labels: ClassLabels, strings, or numbers."""
    short_side: int | None = None
    """Pixels of each image's shorter side; 256 if not given."""
    original: bool = False
    """Keep every image's size, and the bytes of those that are clean already."""
    quality: int = Settings.quality
    """JPEG quality of images that are encoded anew, 1 to 100."""
    shard_size: int = Settings.shard_size
    """Most images in one shard."""
    seed: int = Settings.seed
    """Of the order of the images."""
    workers: int | None = None
    """Processes that convert; one for each core if not given."""
    max_rejects: float = 0.001
    """Fraction of a split's images that may be unusable before the job stops."""

    def __post_init__(self) -> None:
        if self.original and self.short_side is not None:
            raise UsageError("--original keeps every size and --short-side sets one: give one of them")
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"--workers must be 1 or more, not {self.workers}")
        if not 0 <= self.max_rejects <= 1:
            raise UsageError(f"--max-rejects must be a fraction from 0 to 1, not {self.max_rejects}")

    @property
    def settings(self) -> Settings:
        """What of the options shapes the shards. Raises UsageError for values out of range."""
        short_side = Settings.short_side if self.short_side is None else self.short_side
        return Settings(None if self.original else short_side, self.quality, self.shard_size, self.seed)
