"""The data of the rows: shards of each kind, made once, and a source multiplied to more images than the caches hold."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.processes.command import run_command
from benchmarks.rows.rows import Store
from shards.common.atomic import replacing
from shards.common.space import check_room
from shards.dataset import open_dataset
from shards.format.layout import MANIFEST

KINDS: dict[Store, tuple[str, ...]] = {
    "jpeg": (),
    "raw": ("--encoding", "raw"),
    "original": ("--original",),
    "small-jpeg": ("--short-side", "32"),
    "small-raw": ("--short-side", "32", "--encoding", "raw"),
}
# The share of the images that 256-px pixels are stored of: they take nine times the room of JPEGs, and all loaders'
# files must fit into the page cache together.
RAW_SHARE = 4
# Bytes on the disk for each image of a multiplied source: the copy, its Arrow copy, JPEGs and pixels of all kinds, and
# the files of the loaders that have their own. Measured with 900 files of ImageNet.
ROOM = 1_500_000
# Most pixels that a copy's window is smaller than its image, and the quality that the copies are encoded with.
SHIFT, QUALITY = 16, 95
ROWS_A_GROUP = 500


class Stores:
    """Shards of a source below a directory, each kind made when a row first asks for it.

    images: as many as the source is multiplied to; None takes the source as it is.
    """

    def __init__(self, source: str, work: Path, split: str, columns: tuple[str, str], images: int | None) -> None:
        self._given, self._work, self._split, self._columns, self._images = source, work, split, columns, images

    def source(self, store: Store) -> tuple[str, str, str]:
        """What the shards of a kind are made of: the data set, and its columns of images and labels."""
        if self._images is None:
            return self._given, *self._columns
        count = -(-self._images // RAW_SHARE) if store == "raw" else self._images
        path = self._work / f"source-{count}"
        done = path.with_suffix(".done")
        if not done.exists():
            multiply(self._given, self._split, self._columns, path, count)
            done.touch()
        # The `datasets` library copies parquet to Arrow files, which are to go with the rest.
        os.environ["HF_DATASETS_CACHE"] = str(self._work.absolute() / "arrow")
        return str(path), "image", "label"

    def shards(self, store: Store) -> Path:
        """The directory of the shards. Raises ShardfeedError where they cannot be made."""
        path = self._work / f"shards-{store}"
        if not (path / MANIFEST).exists():
            if store == "tars":
                self._index_tars(path)
            else:
                source, image, label = self.source(store)
                words = [source, str(path), "--splits", self._split, *KINDS[store]]
                run_command("preprocess", *words, "--image-column", image, "--label-column", label, kept=False)
        return path

    def _index_tars(self, path: Path) -> None:
        """The tars of originals by themselves, as others publish them, and an index of them."""
        split = open_dataset(self.shards("original"))[self._split]
        path.mkdir(parents=True, exist_ok=True)
        for tar in split.shard_paths:
            if not (path / tar.name).exists():
                os.link(tar, path / tar.name)
        names = path / "classes.txt"
        with replacing(names) as file:
            file.write("".join(f"{name}\n" for name in split.class_names).encode())
        run_command("shards", "index", str(path), "--class-names", str(names), kept=False)


def multiply(source: str, split: str, columns: tuple[str, str], out: Path, count: int, seed: int = 0) -> None:
    """Writes `count` images of a data set as parquet in the hub's layout: the images, then copies of other bytes.

    A copy is its image in a random window that is up to 16 pixels smaller, encoded anew. An image that libjpeg-turbo
    does not decode by itself is copied as it is. Raises ShardfeedError where the disk has too little room.
    """
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    from preprocess.sources import hf_dataset

    check_room(f"measuring {count:,} images", {out: count * ROOM}, "give fewer --images, or a --work on another disk")
    rows = hf_dataset(source, split, *columns)
    names = rows.features["label"].names
    rows = rows.cast_column("image", datasets.Image(decode=False))
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    (out / "data").mkdir(parents=True, exist_ok=True)
    with (
        pq.ParquetWriter(
            out / "data" / f"{split}-00000-of-00001.parquet", features.arrow_schema, compression="none"
        ) as file,
        ThreadPoolExecutor() as threads,
    ):
        for first in range(0, count, ROWS_A_GROUP):
            numbers = range(first, min(first + ROWS_A_GROUP, count))
            chosen = [rows[number % len(rows)] for number in numbers]
            made = threads.map(lambda number, row: _copy(row["image"], number, len(rows), seed), numbers, chosen)
            images = [{"bytes": data, "path": f"{number:08d}.jpg"} for number, data in zip(numbers, made, strict=True)]
            table = pa.table({"image": images, "label": [row["label"] for row in chosen]}, features.arrow_schema)
            file.write_table(table)


def _copy(image: dict[str, Any], number: int, rows: int, seed: int) -> bytes:
    import simplejpeg

    data: bytes = image["bytes"] if image["bytes"] is not None else Path(image["path"]).read_bytes()
    if number < rows:
        return data
    try:
        pixels = simplejpeg.decode_jpeg(data, "RGB")
    except ValueError:
        return data
    top, left, bottom, right = np.random.default_rng((seed, number)).integers(0, SHIFT // 2 + 1, 4)
    height, width = pixels.shape[:2]
    window = pixels[top : max(top + 1, height - bottom), left : max(left + 1, width - right)]
    encoded: bytes = simplejpeg.encode_jpeg(np.ascontiguousarray(window), QUALITY, colorsubsampling="420")
    return encoded
