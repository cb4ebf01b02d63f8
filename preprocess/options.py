"""The options of `python -m preprocess` and their defaults. Quick to import, because --help waits for it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from preprocess.job.plan import WINDOW
from preprocess.job.slices import WHOLE, Slice
from shards.common.errors import UsageError
from shards.common.machine import check_workers
from shards.format.layout import Encoding
from shards.format.manifest import Settings


@dataclass(frozen=True)
class Options:
    """Turns a data set of images into WebDataset shards with DALI indices.

    The same command, started again, keeps the finished shards and goes on.
    """

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """A data set on the hub (ILSVRC/imagenet-1k), a directory of parquet in the hub's layout, what save_to_disk wrote,
    an image folder (SOURCE/<split>/<class>/*.jpg), a directory with the archives of ILSVRC2012 or with tars of
    WebDataset (also DIR/NAME-{0000..1023}.tar), the URL of such a directory (s3://BUCKET/PATH), or
    synthetic:train=2000,validation=500,classes=10,seed=0."""
    out: Annotated[str | Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """Directory for the shards, or a URL of one (s3://BUCKET/PATH, gs://..., hf://...)."""
    splits: tuple[str, ...] | None = None
    """Splits to convert; if not given, all splits that have labels."""
    image_column: str = "image"
    """Column of the images, where the source has columns."""
    label_column: str = "label"
    """Column of the labels: ClassLabels, strings, or numbers."""
    val_labels: Path | None = None
    """File with the classes of validation images that lie in no class folder: a label a line in the order of their
    names, or a file's name and a label."""
    keep: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="COLUMN")] = ()
    """Column of the source that index.parquet gets too, for `split.column(COLUMN)`; may be given several times. Every
    stored source has `path` and `class`."""
    short_side: int | None = None
    """Pixels of each image's shorter side; 256 if not given."""
    original: bool = False
    """Keep the size of every image, and the bytes of every image that is clean already."""
    encoding: Encoding = Settings.encoding
    """How images are stored: "jpeg", or "raw" for decoded pixels (.ppm), which need no decoding in the loader and nine
    times the space at 256 pixels."""
    quality: int | None = None
    """JPEG quality of images that are encoded again, 1 to 100; 90 if not given."""
    shard_size: int = Settings.shard_size
    """Most images in one shard."""
    seed: int = Settings.seed
    """Seed of the order of the images."""
    order: Literal["global", "source"] = "global"
    """Order of the images in the shards: "global" shuffles each split as a whole, and reads the source at random
    places; "source", for slow disks, reads the source once from start to end and shuffles windows of 10,000 rows."""
    workers: int | None = None
    """Processes that convert; if not given, one for each core, with Ray of all machines."""
    executor: Literal["local", "ray"] = "local"
    """Where they run: on this machine, or on a Ray cluster."""
    address: str | None = None
    """Address of the Ray cluster; RAY_ADDRESS if not given. Without both, Ray is started on this machine."""
    max_rejects: float = 0.001
    """Fraction of a split's images that may be unusable before the job stops."""
    tasks: str | None = None
    """Make only slice i of n of the shards, given as i/n with i from 0 to n - 1, so that machines with a common file
    system share a job (--tasks $SLURM_ARRAY_TASK_ID/8 with --array=0-7). Afterwards run --finish once."""
    finish: bool = False
    """Check that the shards of all slices are finished, and write the manifest."""
    repair: bool = False
    """Make damaged or missing files of a finished OUT again, byte for byte."""
    enlarge: bool = False
    """Store images at --short-side although most of the source are smaller."""
    dry_run: bool = False
    """Print the plan and an estimate of size and time; write nothing."""
    force: bool = False
    """Start without the check that the disk has room."""

    def __post_init__(self) -> None:
        if self.original and self.short_side is not None:
            raise UsageError("--original keeps every size and --short-side sets one: give one of them")
        if self.original and self.enlarge:
            raise UsageError("--original keeps every size: leave out --enlarge")
        if self.encoding == "raw" and self.quality is not None:
            raise UsageError("--encoding raw stores pixels and --quality is for JPEGs: give one of them")
        if self.workers is not None:
            check_workers("--workers", self.workers)
        if not 0 <= self.max_rejects <= 1:
            raise UsageError(f"--max-rejects must be a fraction from 0 to 1, not {self.max_rejects}")
        modes = {"--tasks": self.tasks is not None, "--finish": self.finish, "--repair": self.repair}
        given = [name for name, on in modes.items() if on]
        if len(given) > 1:
            raise UsageError(f"{' and '.join(given)} do not go together: run one after the other")
        if self.executor == "ray" and given:
            raise UsageError(f"--executor ray makes all shards and does not go with {given[0]}")
        if self.address is not None and self.executor != "ray":
            raise UsageError("--address names a Ray cluster: give --executor ray too")
        for name, on in {"--dry-run": self.dry_run, "--force": self.force, "--enlarge": self.enlarge}.items():
            if on and (self.finish or self.repair):
                raise UsageError(f"{name} is for making shards and does not go with {given[0]}")
        _ = self.part  # raises where --tasks is no slice

    @property
    def settings(self) -> Settings:
        """The options that shape the shards. Raises UsageError for values out of range."""
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
        """The slice of the shards that this job makes. Raises UsageError where --tasks is no slice."""
        return WHOLE if self.tasks is None else Slice.parse(self.tasks)
