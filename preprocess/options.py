"""The options of `python -m preprocess`: the one place of their defaults, light to import."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from preprocess.job.plan import WINDOW
from preprocess.job.slices import WHOLE, Slice
from shards.common.errors import UsageError
from shards.format.layout import Encoding
from shards.format.manifest import Settings


@dataclass(frozen=True)
class Options:
    """Turns a data set of images into WebDataset shards with DALI indices.

    What is finished already is kept: the same command, started again, goes on.
    """

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """A data set on the hub (ILSVRC/imagenet-1k), a directory of parquet in the hub's layout, what save_to_disk wrote,
    an image folder (SOURCE/<split>/<class>/*.jpg), the URL of one of these (s3://BUCKET/PATH), or
    synthetic:train=2000,validation=500,classes=10,seed=0."""
    out: Annotated[str | Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """Directory for the shards, or a URL of one (s3://BUCKET/PATH, gs://..., hf://...)."""
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
    encoding: Encoding = Settings.encoding
    """How images are stored: "jpeg", or "raw" for decoded pixels (.ppm), which take nine times the space at 256 pixels
    and spare the loader the decoding."""
    quality: int | None = None
    """JPEG quality of images that are encoded anew, 1 to 100; 90 if not given."""
    shard_size: int = Settings.shard_size
    """Most images in one shard."""
    seed: int = Settings.seed
    """Of the order of the images."""
    order: Literal["global", "source"] = "global"
    """Order of the images in the shards: "global" shuffles each split as a whole, which reads the source at random
    places; "source", for slow disks, goes through it once and shuffles within windows of 10,000 rows."""
    workers: int | None = None
    """Processes that convert; one for each core, of all machines with Ray, if not given."""
    executor: Literal["local", "ray"] = "local"
    """What runs them: this machine, or a Ray cluster."""
    address: str | None = None
    """Of the Ray cluster; RAY_ADDRESS if not given, and where that is not set either, Ray is started here."""
    max_rejects: float = 0.001
    """Fraction of a split's images that may be unusable before the job stops."""
    tasks: str | None = None
    """Make only slice i of n of the shards, given as i/n with i from 0 to n - 1: machines with a common file system
    share a job (--tasks $SLURM_ARRAY_TASK_ID/8 with --array=0-7). Then --finish, once."""
    finish: bool = False
    """Check that the shards of all slices are there, and write the manifest."""
    repair: bool = False
    """Of a finished OUT, make damaged or missing files again, byte for byte."""
    dry_run: bool = False
    """Print the plan and an estimate of size and time; write nothing."""
    force: bool = False
    """Start without looking whether the disk has room."""

    def __post_init__(self) -> None:
        if self.original and self.short_side is not None:
            raise UsageError("--original keeps every size and --short-side sets one: give one of them")
        if self.encoding == "raw" and self.quality is not None:
            raise UsageError("--encoding raw stores pixels and --quality is that of JPEGs: give one of them")
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"--workers must be 1 or more, not {self.workers}")
        if not 0 <= self.max_rejects <= 1:
            raise UsageError(f"--max-rejects must be a fraction from 0 to 1, not {self.max_rejects}")
        modes = {"--tasks": self.tasks is not None, "--finish": self.finish, "--repair": self.repair}
        given = [name for name, on in modes.items() if on]
        if len(given) > 1:
            raise UsageError(f"{' and '.join(given)} do not go together: run one after the other")
        if self.executor == "ray" and given:
            raise UsageError(f"--executor ray makes all shards and does not go with {given[0]}")
        if self.address is not None and self.executor != "ray":
            raise UsageError("--address is that of a Ray cluster: give --executor ray too")
        for name, on in {"--dry-run": self.dry_run, "--force": self.force}.items():
            if on and (self.finish or self.repair):
                raise UsageError(f"{name} is for making shards and does not go with {given[0]}")
        # Raises where it is not a slice.
        _ = self.part

    @property
    def settings(self) -> Settings:
        """What of the options shapes the shards. Raises UsageError for values out of range."""
        short_side = Settings.short_side if self.short_side is None else self.short_side
        return Settings(
            short_side=None if self.original else short_side,
            quality=Settings.quality if self.quality is None else self.quality,
            shard_size=self.shard_size,
            seed=self.seed,
            window=WINDOW if self.order == "source" else None,
            encoding=self.encoding,
        )

    @property
    def part(self) -> Slice:
        """What of the shards this job makes. Raises UsageError for what is no slice."""
        return WHOLE if self.tasks is None else Slice.parse(self.tasks)
