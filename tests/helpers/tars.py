"""Tars as others write them, by webdataset's TarWriter, and odd ones by tarfile; and their index."""

import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import webdataset

from preprocess.index.job import index
from preprocess.index.options import Options
from shards.dataset import Dataset, open_dataset


def write_tar(path: Path, samples: Sequence[Mapping[str, Any]]) -> Path:
    """A tar of these samples, each with `__key__`, by webdataset's own writer."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with webdataset.TarWriter(str(path)) as writer:
        for sample in samples:
            writer.write(dict(sample))
    return path


def tar_of(members: Sequence[tuple[str, bytes]], kind: int = tarfile.GNU_FORMAT) -> bytes:
    """The bytes of a tar with these files, names and contents."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=kind) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


def indexed(source: str | Path, to: Path | None = None, **options: Any) -> Dataset:
    """Indexes `source` in this process, with any number of rejects, and opens it, or its index in `to`."""
    index(Options(str(source), to=to, **{"workers": 1, "max_rejects": 1.0, **options}))
    return open_dataset(source if to is None else to)
