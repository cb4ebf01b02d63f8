"""Writes one shard: a WebDataset tar and DALI's index of it, the same bytes however often it is written.

train-00000.tar   for each sample {key}.jpg, then {key}.cls (the label in ASCII), POSIX ustar
train-00000.idx   "v1.2 SAMPLES", then a line a sample: "jpg OFFSET SIZE NAME cls OFFSET SIZE NAME"
"""

import hashlib
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import webdataset

from shards.atomic import replacing
from shards.index import Index
from shards.layout import dali_index_name, shard_name, split_dir
from shards.manifest import ShardInfo

IDX_VERSION = "v1.2"
# Tar pads everything to blocks. A header is one block: names here are far shorter than the 100 bytes it holds.
BLOCK = 512
# Whoever runs the job and whenever: the archive must not tell, or its bytes would differ.
OWNER = "shardfeed"
MODE = 0o644


@dataclass(frozen=True)
class Sample:
    """One sample to store: its key (unique in the split), a JPEG, its label and the JPEG's size in pixels."""

    key: str
    data: bytes
    label: int
    width: int
    height: int


class _HashedFile:
    """Passes what is written on to a file and keeps its SHA-256 and length, so that nothing is read back."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()
        self.bytes = 0

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        self.bytes += len(data)
        return self._file.write(data)


def write_shard(root: str | Path, split: str, number: int, samples: Iterable[Sample]) -> tuple[ShardInfo, Index]:
    """Writes shard `number` of a split under `root` and returns what the manifest and the index say of it.

    Both files appear under their names only when whole and synced to disk, the tar last. Raises OSError as the
    file system does, and whatever `samples` raises; neither leaves a partial file.
    """
    name = shard_name(split, number)
    tar_path = split_dir(root, split) / name
    rows: list[tuple[int, int, int, int, int, int, int]] = []
    keys: list[str] = []
    with replacing(tar_path) as file:
        hashed = _HashedFile(file)
        with webdataset.TarWriter(hashed, user=OWNER, group=OWNER, mode=MODE, mtime=0, encoder=False) as tar:
            for sample in samples:
                offset = tar.tarstream.offset + BLOCK
                crc32 = zlib.crc32(sample.data)
                # Two calls, since one would sort the label before the image; same key, so still one sample.
                tar.write({"__key__": sample.key, "jpg": sample.data})
                tar.write({"__key__": sample.key, "cls": _label(sample.label)})
                rows.append((number, offset, len(sample.data), sample.label, sample.width, sample.height, crc32))
                keys.append(sample.key)
        index = Index.from_rows(rows, keys)
        with replacing(tar_path.with_name(dali_index_name(name))) as idx:
            idx.write(dali_index(index))
    return ShardInfo(name, hashed.bytes, len(rows), hashed.sha256.hexdigest()), index


def dali_index(index: Index) -> bytes:
    """The content of a shard's .idx file, from the shard's rows of the index, keys included.

    The same as NVIDIA's wds2idx makes by listing the tar: for each file its extension, the position of its
    first byte, its length and its name.
    """
    if index.key is None:
        raise ValueError("DALI's index names files: read the index with its keys")
    lines = [f"{IDX_VERSION} {len(index)}\n"]
    columns = (index.key, index.offset.tolist(), index.size.tolist(), index.label.tolist())
    for key, offset, size, label in zip(*columns, strict=True):
        label_at = offset + -(-size // BLOCK) * BLOCK + BLOCK
        lines.append(f"jpg {offset} {size} {key}.jpg cls {label_at} {len(_label(label))} {key}.cls\n")
    return "".join(lines).encode("ascii")


def _label(label: int) -> bytes:
    return str(label).encode("ascii")
