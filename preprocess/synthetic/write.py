"""Writes the synthetic data set as a directory of parquet in the hub's layout, drawn by worker processes."""

import concurrent.futures
import functools
import multiprocessing
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from preprocess.sources.source import Row
from preprocess.synthetic import SyntheticSource
from shards.common.atomic import refuse_unwritable
from shards.common.cli import show_result
from shards.common.errors import UsageError
from shards.common.machine import usable_cores
from shards.common.terminal import counted, progress_bar

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_A_GROUP = 100
METADATA_KEY = b"shardfeed.synthetic"


@dataclass(frozen=True)
class Options:
    """Makes a small data set of synthetic images, as a directory of parquet in the hub's layout."""

    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
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
    """Processes that draw; if not given, one for each core."""


def write(options: Options) -> None:
    """Writes the data set to a directory beside OUT, then renames it to OUT.

    Does nothing if OUT holds this data set already. Raises UsageError if OUT holds anything else.
    """
    source = SyntheticSource(options.train, options.validation, options.classes, options.seed)
    workers = usable_cores() if options.workers is None else options.workers
    if workers < 1:
        raise UsageError(f"--workers {workers} must be at least 1")
    out = options.out
    if _holds(out, source):
        print(f"{out} holds {source.name} already")
        show_result({"out": out})
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} holds something else than {source.name}: give another directory, or remove it")
    refuse_unwritable("OUT", out)
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        beside.chmod(0o755)  # mkdtemp's directories are private to their owner
        for split in source.splits:
            _write_split(source, split, beside, workers)
        beside.rename(out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    size = sum(path.stat().st_size for path in out.rglob("*.parquet"))
    classes = counted(source.classes, "class", "classes")
    print(f"{out}: {source.train} + {source.validation} images of {classes}, {size / 1e6:.0f} MB")
    show_result({"out": out})


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
        progress_bar(total=source.num_rows(split), desc=split, unit="images") as bar,
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
