"""Sources of images: the hub, local parquet, saved data sets, image folders, synthetic images.

A source gives encoded bytes, one row at a time and in any order; it decodes nothing. What a name means:

    synthetic:train=2000,...      synthetic images, drawn row by row (preprocess/synthetic)
    DIR/data/train-*.parquet      a directory of parquet in the hub's layout; also DIR/train-*.parquet
    DIR                           what `save_to_disk` of a `Dataset` or a `DatasetDict` wrote
    DIR/<split>/<class>/*.jpg     an image folder; Kaggle's, torchvision's and Tiny-ImageNet's (imagenet/layouts.py)
    DIR/ILSVRC2012_img_train.tar  the archives of ILSVRC2012 (imagenet/archives.py)
    DIR/*.tar, DIR/x-{0..9}.tar   tars of WebDataset (tars/)
    s3://BUCKET/PATH              one of these, copied to the disk first (mirror.py); also gs://, hf://
    ILSVRC/imagenet-1k            anything else: a data set on the hub, through `datasets.load_dataset`
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from preprocess.sources import folder, tables
from preprocess.sources.imagenet import archives
from preprocess.sources.imagenet.layouts import find_layout
from preprocess.sources.kept import OF_EVERY_SOURCE, Columns, keeping
from preprocess.sources.mirror import mirrored
from preprocess.sources.source import ChosenSplits, Source, StoredSource, choose
from preprocess.sources.tars.ours import names_beside
from preprocess.sources.tars.webdataset import open_tars
from shards.common.errors import UsageError
from shards.indexed import source as tars_of_others
from shards.remote.urls import is_url

if TYPE_CHECKING:
    import datasets

SYNTHETIC = "synthetic:"


def open_source(
    name: str,
    splits: Sequence[str] | None = None,
    image_column: str = "image",
    label_column: str = "label",
    val_labels: Path | None = None,
    keep: Sequence[str] = (),
) -> Source:
    """Opens the source that `name` means (see the top of this file).

    `splits`: None for all splits except those whose labels are all hidden. The image and label columns are those of
    tables. `val_labels`: a file with the classes of validation images that lie in no class folder (listed.py). `keep`:
    names of columns that the index of the shards is to have too (kept.py). Raises UsageError for a source, split,
    column or list that does not exist or does not fit, ShardfeedError for a source that cannot be reached or read.
    """
    if not name.startswith(SYNTHETIC):
        return _open_stored(name, splits, image_column, label_column, val_labels, keep)
    from preprocess import synthetic

    if val_labels is not None or keep:
        raise UsageError("synthetic images have their labels and no columns: leave out --val-labels and --keep")
    made = synthetic.parse(name)
    return made if splits is None else ChosenSplits(made, choose(name, made.splits, splits))


def hf_dataset(name: str, split: str, image_column: str = "image", label_column: str = "label") -> "datasets.Dataset":
    """One split as the `datasets` library gives it: "image" decodes to a PIL image, "label" is a class number.

    The naive loader of the benchmarks reads it. Raises as `open_source` does, and UsageError for synthetic images.
    """
    import datasets

    if name.startswith(SYNTHETIC):
        raise UsageError(
            f"{name} draws its images at each reading, so it cannot show what reading a data set costs: "
            "write it with `python -m preprocess.synthetic DIR` and give DIR"
        )
    source = _open_stored(name, [split], image_column, label_column, None, ())
    label = datasets.ClassLabel(names=list(source.class_names))
    return source.images[split].table().add_column("label", source.labels[split].tolist(), feature=label)


def local_path(name: str) -> Path | None:
    """The directory that `name` means, or None where it means a data set on the hub.

    A directory that exists comes first. Raises UsageError for a file, and for a path that does not exist.
    """
    if is_url(name):
        return mirrored(name)
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise UsageError(f"{name} is a file: give the directory that holds the data set")
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise UsageError(f"there is no directory {name}")
    return None


def _open_stored(
    name: str,
    splits: Sequence[str] | None,
    image_column: str,
    label_column: str,
    val_labels: Path | None,
    keep: Sequence[str],
) -> StoredSource:
    pattern = not is_url(name) and tars_of_others.names_tars(name)
    path = None if pattern else local_path(name)
    columns = [column for column in keep if column not in OF_EVERY_SOURCE]
    there: Columns = {}
    table = path is None or tables.is_table(path)
    if path is not None and not table and archives.is_archives(path):
        return keeping(archives.open_archives(name, path, splits, val_labels), keep, there)
    tars = tars_of_others.open_source(name) if pattern else None
    if path is not None and not table and not folder.holds_classes(path) and tars_of_others.listed(str(path)):
        tars = tars_of_others.open_source(path)
    if val_labels is not None and (tars or table):
        raise UsageError(f"--val-labels is for images that lie in no class folder, and {name} has labels of its own")
    if tars:
        names = names_beside(name, name if path is None else path)
        source, there = open_tars(name, tars, splits, columns)
        if names is not None and len(names) >= len(source.class_names):
            source = dataclasses.replace(source, class_names=names)  # the fingerprint stays that of the numbers
    elif path is None or table:
        source, there = tables.open_tables(name, path, splits, image_column, label_column, columns)
    else:
        source = folder.open_folder(name, find_layout(name, path, val_labels), splits)
    return keeping(source, keep, there)
