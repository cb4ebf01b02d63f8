"""The frozen description of a finished data set, and its form on disk, `manifest.json`.

It is written last, so its presence means that every shard it names is whole.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from shards.common.atomic import replacing
from shards.common.errors import UsageError
from shards.format.layout import MANIFEST, Encoding, check_split_name

# 1: JPEG only. 2: `encoding` among the settings.
FORMAT_VERSION = 2


@dataclass(frozen=True)
class ShardInfo:
    """One tar: its file name, its length in bytes, how many samples it holds, and its SHA-256 in hex."""

    name: str
    bytes: int
    samples: int
    sha256: str


@dataclass(frozen=True)
class IndexInfo:
    """A split's index.parquet: its length in bytes, and its SHA-256 in hex."""

    bytes: int
    sha256: str


def index_info(path: Path) -> IndexInfo:
    """What a manifest says of the index in `path`. Raises OSError where it cannot be read."""
    with path.open("rb") as file:
        return IndexInfo(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


@dataclass(frozen=True)
class SplitInfo:
    """One split: samples kept, source rows rejected, and its shards in order.

    `kinds`: samples by kind of input; `reasons`: rejects by reason. `index`: None in data sets made before manifests
    held it.
    """

    samples: int
    rejects: int
    shards: tuple[ShardInfo, ...]
    kinds: Mapping[str, int] = field(default_factory=dict)
    reasons: Mapping[str, int] = field(default_factory=dict)
    index: IndexInfo | None = None

    @property
    def bytes(self) -> int:
        """Bytes of all shards together."""
        return sum(shard.bytes for shard in self.shards)


@dataclass(frozen=True)
class Settings:
    """What shapes the bytes of a data set, apart from its source.

    `short_side`: length in pixels of every image's shorter side; None keeps the original sizes.
    `quality`: JPEG quality, 1 to 100, of images that are encoded anew; without a meaning for raw pixels.
    `shard_size`: most samples in one shard.
    `seed`: of the order of samples.
    `window`: rows of the source that are shuffled among each other, one window after the other in the
    source's order; None shuffles each split as a whole.
    `encoding`: "jpeg", or "raw" for 8-bit RGB pixels as they were before a JPEG would be made of them.
    """

    short_side: int | None = 256
    quality: int = 90
    shard_size: int = 1000
    seed: int = 0
    window: int | None = None
    encoding: Encoding = "jpeg"

    def __post_init__(self) -> None:
        if self.short_side is not None and not 8 <= self.short_side <= 4096:
            raise UsageError(f"the shorter side must be 8 to 4096 pixels, not {self.short_side}")
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


@dataclass(frozen=True)
class Manifest:
    """A whole data set: where it came from, how it was made, and what it consists of.

    `fingerprint` identifies the content of the source, whatever its path. `libraries` names the versions
    of the image libraries: other versions may encode the same pixels to other bytes.
    """

    format_version: int
    program_version: str
    source: str
    fingerprint: str
    class_names: tuple[str, ...]
    settings: Settings
    splits: Mapping[str, SplitInfo]
    libraries: Mapping[str, str] = field(default_factory=dict)

    def write(self, root: str | Path) -> None:
        """Writes `root`/manifest.json: atomically, synced to disk, the same bytes for the same content."""
        content = dataclasses.asdict(self)
        for split in content["splits"].values():
            if split["index"] is None:
                del split["index"]
        with replacing(Path(root) / MANIFEST) as file:
            file.write((json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())

    @classmethod
    def read(cls, root: str | Path) -> "Manifest":
        """Reads `root`/manifest.json.

        Raises UsageError where there is no such directory, no manifest in it, a manifest of a newer format,
        or one that is damaged.
        """
        root = Path(root)
        if not root.is_dir():
            raise UsageError(f"{root} is not a directory: give the directory that `python -m preprocess` wrote")
        path = root / MANIFEST
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            raise UsageError(
                f"{root} holds no {MANIFEST}, so it is not a finished data set: give the OUT of "
                "`python -m preprocess SOURCE OUT`, and run that (again) if it was stopped"
            ) from None
        try:
            content = json.loads(text)
            version = content["format_version"]
            if isinstance(version, int) and version > FORMAT_VERSION:
                raise UsageError(
                    f"{path} has format version {version}, newer than the {FORMAT_VERSION} known here: "
                    "install a newer shardfeed"
                )
            return _from_json(content)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(
                f"{path} is damaged ({type(error).__name__}: {error}): delete it and run `python -m preprocess` again"
            ) from None


def _from_json(content: dict[str, Any]) -> Manifest:
    splits = {
        check_split_name(name): SplitInfo(
            samples=int(split["samples"]),
            rejects=int(split["rejects"]),
            shards=tuple(ShardInfo(**shard) for shard in split["shards"]),
            kinds={str(kind): int(count) for kind, count in split["kinds"].items()},
            reasons={str(reason): int(count) for reason, count in split["reasons"].items()},
            index=IndexInfo(int(split["index"]["bytes"]), str(split["index"]["sha256"]))
            if split.get("index")
            else None,
        )
        for name, split in content["splits"].items()
    }
    for name, split in splits.items():
        if sum(shard.samples for shard in split.shards) != split.samples:
            raise ValueError(f"the shards of {name} do not add up to its {split.samples} samples")
    return Manifest(
        format_version=int(content["format_version"]),
        program_version=str(content["program_version"]),
        source=str(content["source"]),
        fingerprint=str(content["fingerprint"]),
        class_names=tuple(str(name) for name in content["class_names"]),
        settings=Settings(**content["settings"]),
        splits=splits,
        libraries={str(name): str(version) for name, version in content["libraries"].items()},
    )
