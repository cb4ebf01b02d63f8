"""A made-up data set: ten kinds of shapes, in image files of ImageNet's sizes and with its oddities.

    python -m preprocess.synthetic OUT [--train 2000] [--validation 500] [--classes 10] [--seed 0] [--workers N]

writes it as a directory of parquet in the layout of the hub's `ILSVRC/imagenet-1k`, which
`datasets.load_dataset("OUT")` and `python -m preprocess OUT SHARDS` open. The source
`synthetic:train=2000,validation=500,classes=10,seed=0` gives the same rows to `python -m preprocess`
with nothing written in between. At least 100 images a second and core, 0.1 MB each.

A row is a function of (seed, split, row) alone: neither the order of asking, the number of rows
nor the number of workers changes its bytes. Other versions of numpy or Pillow may.
"""

import concurrent.futures
import functools
import hashlib
import multiprocessing
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import PIL
import tyro
from tqdm import tqdm

from preprocess import photograph, scene
from preprocess.row import Row
from shards import cli
from shards.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

PREFIX = "synthetic"
REVISION = 1  # to be raised with every change of the pictures: it is part of the fingerprint
SPLIT_STREAMS = {"train": 0, "validation": 1}
LABELS, PICTURES = 0, 1  # random streams of a split

ROWS_A_GROUP = 100
METADATA_KEY = b"shardfeed.synthetic"


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


@dataclass(frozen=True)
class Options:
    """Makes a small data set of synthetic images, as a directory of parquet in the hub's layout."""

    out: Annotated[Path, tyro.conf.Positional]
    """Directory to make."""
    train: int = SyntheticSource.train
    """Images to train on."""
    validation: int = SyntheticSource.validation
    """Images to validate on."""
    classes: int = SyntheticSource.classes
    """Kinds of shapes."""
    seed: int = SyntheticSource.seed
    """Another seed gives other images."""
    workers: int | None = None
    """Processes that draw; one for each core if not given."""


def write(options: Options) -> None:
    """Writes the data set that the options describe to a directory beside OUT, then renames it to OUT.

    Does nothing if OUT holds that very data set already. Raises UsageError if it holds anything else.
    """
    source = SyntheticSource(options.train, options.validation, options.classes, options.seed)
    workers = len(os.sched_getaffinity(0)) if options.workers is None else options.workers
    if workers < 1:
        raise UsageError(f"--workers {workers} must be at least 1")
    out = options.out
    if _holds(out, source):
        print(f"{out} holds {source.name} already")
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} holds something else than {source.name}: choose another directory or remove it")
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        beside.chmod(0o755)  # mkdtemp's directories are for their owner's eyes alone
        for split in source.splits:
            _write_split(source, split, beside, workers)
        beside.rename(out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    size = sum(path.stat().st_size for path in out.rglob("*.parquet"))
    print(f"{out}: {source.train} + {source.validation} images of {source.classes} classes, {size / 1e6:.0f} MB")


def _parquet(out: Path, split: str) -> Path:
    return out / "data" / f"{split}-00000-of-00001.parquet"


def _holds(out: Path, source: SyntheticSource) -> bool:
    import pyarrow.parquet as pq

    for split in source.splits:
        path = _parquet(out, split)
        if not path.is_file():
            return False
        metadata = pq.read_schema(path).metadata or {}
        if metadata.get(METADATA_KEY) != source.fingerprint.encode():
            return False
    return True


def _write_split(source: SyntheticSource, split: str, out: Path, workers: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema(source)
    path = _parquet(out, split)
    path.parent.mkdir(exist_ok=True)
    with (
        pq.ParquetWriter(path, schema, compression="none") as writer,
        tqdm(total=source.num_rows(split), desc=split, unit="images", disable=None) as bar,
    ):
        for rows in _drawn(source, split, workers):
            images = [{"bytes": row.data, "path": row.path} for row in rows]
            writer.write_table(pa.table({"image": images, "label": [row.label for row in rows]}, schema=schema))
            bar.update(len(rows))


def _schema(source: SyntheticSource) -> "pa.Schema":
    import datasets

    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(source.class_names))}
    )
    schema: pa.Schema = features.arrow_schema
    return schema.with_metadata({**(schema.metadata or {}), METADATA_KEY: source.fingerprint.encode()})


def _drawn(source: SyntheticSource, split: str, workers: int) -> Iterator[list[Row]]:
    """All rows of the split, a row group at a time and in order."""
    count = source.num_rows(split)
    groups = [range(start, min(start + ROWS_A_GROUP, count)) for start in range(0, count, ROWS_A_GROUP)]
    draw = functools.partial(_draw_group, source, split)
    if workers == 1:
        yield from map(draw, groups)
        return
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(min(workers, len(groups)), mp_context=context) as pool:
        yield from pool.map(draw, groups)


def _draw_group(source: SyntheticSource, split: str, rows: range) -> list[Row]:
    return [source.row(split, row) for row in rows]


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    return cli.run("python -m preprocess.synthetic", Options, write, argv)


if __name__ == "__main__":
    sys.exit(main())
