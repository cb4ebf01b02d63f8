"""Names of files and keys in a data set directory: only this module makes them.

OUT/manifest.json              written last; without it the directory is not a data set
OUT/train/train-00000.tar      samples: {key}.jpg ({key}.ppm in raw shards), then {key}.cls
OUT/train/train-00000.idx      DALI's index of that tar
OUT/train/index.parquet        one row a sample
OUT/train/rejects.jsonl        source rows that are in no shard, each with its reason
"""

import re
from pathlib import Path
from typing import Literal

from shards.common.errors import UsageError

MANIFEST = "manifest.json"
INDEX = "index.parquet"
REJECTS = "rejects.jsonl"

# Tar pads everything to blocks of so many bytes. A header is one block: names here are far shorter than the 100 bytes
# that it holds. So is a label.
BLOCK = 512

# How the images of a data set are stored: as JPEGs, or as their decoded pixels (binary PPM).
Encoding = Literal["jpeg", "raw"]
_EXTENSIONS: dict[Encoding, str] = {"jpeg": "jpg", "raw": "ppm"}

# Characters of a path or a URL.
LONGEST_PLACE = 4096

_NAMED_WNID = re.compile(r"n\d{8}: ")
_SPLIT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def is_split_name(name: str) -> bool:
    """Whether `name` can be a directory name and the start of shard names: letters, digits, "_" and "-".

    DALI's index separates fields by spaces and takes everything after a name's first dot for its extension.
    """
    return _SPLIT_NAME.fullmatch(name) is not None


def check_split_name(name: str) -> str:
    """Returns `name` if it can be the name of a split. Raises UsageError for others."""
    if not is_split_name(name):
        raise UsageError(f"{name!r} cannot be the name of a split: use letters, digits, '_' and '-' only")
    return name


def class_id(class_name: str) -> str:
    """What tells a class from all others: the WNID of "n01440764: tench, Tinca tinca"; of other names the whole."""
    return class_name[:9] if _NAMED_WNID.match(class_name) else class_name


def split_dir(root: str | Path, split: str) -> Path:
    """The directory that holds the shards, the index and the rejects of one split."""
    return Path(root) / check_split_name(split)


def shard_name(split: str, number: int) -> str:
    """File name of a split's shard, for example `train-00017.tar`: five digits, more from 100,000 on."""
    return f"{check_split_name(split)}-{number:05d}.tar"


def is_place(place: str) -> bool:
    """Whether `place` can be where a tar of others lies: a URL, an absolute path, or one relative to the manifest.

    A relative one leads out of the manifest's directory by one step at most: an index lies in the directory of its
    tars, or in one beside them.
    """
    if not place or len(place) > LONGEST_PLACE or not place.isprintable():
        return False
    return ".." not in place.removeprefix("../").split("/")


def dali_index_name(tar_name: str) -> str:
    """File name of DALI's index of a shard, beside the shard: `train-00017.idx` for `train-00017.tar`."""
    return f"{tar_name.removesuffix('.tar')}.idx"


def sample_key(row: int) -> str:
    """Key of the sample made from a source row, unique in its split: the row's number, in eight digits or more."""
    return f"{row:08d}"


def extension(encoding: Encoding) -> str:
    """The extension of stored images, without the dot: `jpg`, or `ppm` for raw pixels."""
    return _EXTENSIONS[encoding]
