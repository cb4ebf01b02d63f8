"""The frozen description of a finished data set, and its form on disk, `manifest.json`.

It is written last, so its presence means that every shard it names is whole.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from shards.common.atomic import replacing
from shards.common.errors import UsageError
from shards.common.records import Count, Sha256, Sha256OrNone, read_record
from shards.format.layout import MANIFEST, Encoding, is_place, is_split_name, shard_name, split_dir

# 1: JPEG only. 2: `encoding` among the settings.
FORMAT_VERSION = 2
# 3: shards that others wrote, each with a place of its own; otherwise as 2. Conversions write 2.
INDEXED_VERSION = 3
# What a further column of the indices may hold, as Arrow calls it.
COLUMN_TYPES = ("string", "int64")
# The lengths in pixels that images' shorter side may be stored with.
SHORT_SIDES = range(8, 4097)
# A damaged manifest cannot be made again in its place: it alone says what the shards must be.
ADVICE = "copy it again from where the data set came, or make the data set again in another directory"


@dataclass(frozen=True)
class ShardInfo:
    """One tar: its file name, its length in bytes, how many samples it holds, and its SHA-256 in hex.

    Of tars that others wrote also `place`: a path relative to the manifest's directory, an absolute one, or a URL; and
    `modified`: the time of its last change in nanoseconds, or what its store says (an ETag). "" where unknown, as is
    `sha256` there: such tars are not hashed.
    """

    name: str
    bytes: Count
    samples: Count
    sha256: Sha256OrNone
    place: str = ""
    modified: str = ""

    def path(self, root: Path, split: str) -> Path:
        """The path of a shard on this machine. `root`: the directory of the manifest."""
        if self.place:
            return Path(os.path.normpath(root / self.place))
        return split_dir(root, split) / self.name


@dataclass(frozen=True)
class IndexInfo:
    """A split's index.parquet: its length in bytes, and its SHA-256 in hex."""

    bytes: Count
    sha256: Sha256


def index_info(path: Path) -> IndexInfo:
    """Length and hash of the index in `path`. Raises OSError where it cannot be read."""
    with path.open("rb") as file:
        return IndexInfo(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


@dataclass(frozen=True, repr=False)
class SplitInfo:
    """One split: samples kept, source rows rejected, and its shards in order.

    `kinds`: samples by kind of input; `reasons`: rejects by reason. `index`: None in manifests of earlier versions,
    which do not hold it. `checksums`: whether the index holds the CRC-32 of each sample; not where only headers were
    read.
    """

    samples: Count
    rejects: Count
    shards: tuple[ShardInfo, ...]
    kinds: Mapping[str, Count] = field(default_factory=dict)
    reasons: Mapping[str, Count] = field(default_factory=dict)
    index: IndexInfo | None = None
    checksums: bool = True

    def __repr__(self) -> str:
        return f"<SplitInfo: {self.samples:,} samples in {len(self.shards):,} shards, {self.rejects:,} rejects>"

    @property
    def bytes(self) -> int:
        """Bytes of all shards together."""
        return sum(shard.bytes for shard in self.shards)


@dataclass(frozen=True)
class Settings:
    """The options that shape the bytes of a data set, apart from its source.

    `short_side`: length in pixels of every image's shorter side; None keeps the original sizes.
    `quality`: JPEG quality, 1 to 100, of images that are encoded anew; ignored for raw pixels.
    `shard_size`: the most samples in one shard.
    `seed`: of the order of samples.
    `window`: rows of the source that are shuffled among each other, window after window in the source's order; None
    shuffles each split as a whole.
    `encoding`: "jpeg", or "raw" for the 8-bit RGB pixels of which the JPEG would be made.
    """

    short_side: int | None = 256
    quality: int = 90
    shard_size: int = 1000
    seed: int = 0
    window: int | None = None
    encoding: Encoding = "jpeg"

    def __post_init__(self) -> None:
        if self.short_side is not None and self.short_side not in SHORT_SIDES:
            least, most = SHORT_SIDES[0], SHORT_SIDES[-1]
            raise UsageError(f"the shorter side must be {least} to {most} pixels, not {self.short_side}")
        if not 1 <= self.quality <= 100:
            raise UsageError(f"the JPEG quality must be 1 to 100, not {self.quality}")
        if self.shard_size < 1:
            raise UsageError(f"a shard must hold at least 1 sample, not {self.shard_size}")
        if self.seed < 0:
            raise UsageError(f"the seed must be 0 or more, not {self.seed}")
        if self.window is not None and self.window < 1:
            raise UsageError(f"a window must hold at least 1 row, not {self.window}")
        if self.encoding not in get_args(Encoding):
            raise UsageError(f"the encoding must be {' or '.join(get_args(Encoding))}, not {self.encoding!r}")


@dataclass(frozen=True, repr=False)
class Manifest:
    """A whole data set: its source, its settings and its parts.

    `fingerprint`: identifies the content of the source, whatever its path. `libraries`: versions of the image
    libraries, since other versions may encode the same pixels to other bytes. `columns`: the further columns of the
    indices, each "string" or "int64"; absent from the file where there are none.
    `tars_hash`: of tars of others, of their names, lengths and times and of the rules by which they were read; "" where
    they are to be read again in any case.
    """

    format_version: Count
    program_version: str
    source: str
    fingerprint: str
    class_names: tuple[str, ...]
    settings: Settings
    splits: Mapping[str, SplitInfo]
    libraries: Mapping[str, str] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    tars_hash: str = ""

    def __repr__(self) -> str:
        return (
            f"<Manifest of {self.source}: {', '.join(self.splits)}, {len(self.class_names):,} classes, "
            f"format version {self.format_version}>"
        )

    @property
    def indexed(self) -> bool:
        """Whether its shards are tars that others wrote, read where they lie."""
        return self.format_version >= INDEXED_VERSION

    def write(self, root: str | Path) -> None:
        """Writes `root`/manifest.json: atomically, synced to disk, the same bytes for the same content."""
        content = dataclasses.asdict(self)
        for split in content["splits"].values():
            if split["index"] is None:
                del split["index"]
            if not self.indexed:  # fields of tars that others wrote
                del split["checksums"]
                for shard in split["shards"]:
                    del shard["place"], shard["modified"]
        if not self.indexed:
            del content["tars_hash"]
        if not self.columns:
            del content["columns"]
        with replacing(Path(root) / MANIFEST) as file:
            file.write((json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())

    @classmethod
    def read(cls, root: str | Path) -> "Manifest":
        """Reads `root`/manifest.json.

        Raises UsageError where there is no such directory or no manifest in it, and as `parse` does.
        """
        root = Path(root)
        if not root.is_dir():
            raise UsageError(f"{root} is not a directory: give the directory that `python -m preprocess` wrote")
        path = root / MANIFEST
        if not path.is_file():  # a pipe would be waited for, and a device read without end
            raise UsageError(
                f"{root} holds no {MANIFEST}, so it is not a finished data set: give the OUT of "
                "`python -m preprocess SOURCE OUT`, and run that (again) if it was stopped"
            )
        return cls.parse(path.read_bytes(), path)

    @classmethod
    def parse(cls, data: bytes, where: object) -> "Manifest":
        """The manifest in the file `where`, whose content is `data`. Nothing of it is trusted.

        Raises UsageError for a manifest of a newer format, or one with a field that cannot be: names are those that
        shards/format/layout.py makes, hashes are hashes, and sums add up.
        """
        head = read_record(_Head, data, where, ADVICE)
        if head.format_version > INDEXED_VERSION:
            raise UsageError(
                f"{where} has format version {head.format_version}, newer than the {INDEXED_VERSION} known here: "
                "install a newer shardfeed"
            )
        manifest = read_record(cls, data, where, ADVICE)
        if fault := next(manifest._faults(), None) or head.unknown_setting:
            raise UsageError(f"{where} is damaged ({fault}): {ADVICE}")
        return manifest

    def _faults(self) -> Iterator[str]:
        """What is wrong with values of the right type, in words."""
        if not self.splits:
            yield "splits: there are none"
        for column, kind in self.columns.items():
            if kind not in COLUMN_TYPES:
                yield f"columns: {column!r} holds {kind!r}, which is none of {' and '.join(COLUMN_TYPES)}"
        for split, info in self.splits.items():
            if not is_split_name(split):
                yield f"splits: {split!r} cannot be the name of a split"
                return
            for number, shard in enumerate(info.shards):
                at = f"splits.{split}.shards[{number}]"
                if self.indexed:
                    if not is_place(shard.place):
                        yield f"{at}.place: {shard.place!r} is no place of a tar"
                elif shard.name != shard_name(split, number):
                    yield f"{at}.name: {shard.name!r} is not {shard_name(split, number)}"
                elif shard.place or not shard.sha256:
                    yield f"{at}: shards of version {self.format_version} have a SHA-256, and no place of their own"
            if not (info.checksums or self.indexed):
                yield f"splits.{split}.checksums: only indices of tars of others may lack them"
            if sum(shard.samples for shard in info.shards) != info.samples:
                yield f"splits.{split}.samples: the shards do not add up to {info.samples}"


@dataclass(frozen=True)
class _Head:
    """The part of a manifest that is looked at before the rest."""

    format_version: Count
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def unknown_setting(self) -> str | None:
        """Names a setting that this program does not know, which would shape the bytes of shards unseen."""
        unknown = self.settings.keys() - {each.name for each in dataclasses.fields(Settings)}
        return f"settings: {min(unknown)!r} is unknown" if unknown else None
