"""Which source rows go into which shard: a pure function, written to OUT before the first shard.

The rows of each split are put into a seeded order and cut into shards whose lengths differ by at most one. The order
is a permutation of the whole split, or, for sources on slow disks, the source's own order with the rows of each window
shuffled. It depends neither on the number of workers nor on their speed, so a job that was killed resumes exactly
where it stopped, and any shard can be made again alone.
"""

import dataclasses
import errno
import functools
import hashlib
import json
import os
import socket
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from shards.common.atomic import replacing, sync_directory
from shards.common.errors import ShardfeedError, UsageError
from shards.common.versions import version
from shards.format.layout import check_split_name
from shards.format.manifest import Manifest, Settings
from shards.sampling.hashing import permutation

if TYPE_CHECKING:
    from preprocess.sources.source import Source

# Rows that `--order source` shuffles together: those of ten shards. Of ImageNet they are 1.1 GB, which the page cache
# holds while those shards are made, so that each byte comes from the disk once.
WINDOW = 10_000
# Other versions of these libraries may make different bytes of the same picture.
LIBRARIES = ("pillow", "simplejpeg")
NOT_INSTALLED = "not installed"
# Errors of file systems without hard links.
NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


@dataclass(frozen=True)
class Plan:
    """Everything that decides the bytes of a data set.

    `splits`: rows of each split; `libraries`: their versions; `keep`: columns of the source that the index has too.
    """

    source: str
    fingerprint: str
    splits: Mapping[str, int]
    settings: Settings
    program_version: str
    libraries: Mapping[str, str]
    keep: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for split in self.splits:
            check_split_name(split)

    @property
    def tasks(self) -> list[tuple[str, int]]:
        """Every shard of the data set, as (split, number)."""
        return [(split, number) for split in self.splits for number in range(self.shards(split))]

    def shards(self, split: str) -> int:
        """Number of shards of a split: as few as its rows need."""
        return shard_count(self.splits[split], self.settings.shard_size)

    def rows(self, split: str, number: int) -> npt.NDArray[np.int64]:
        """The source rows of one shard, in the order in which they are stored."""
        total = self.splits[split]
        part = shard_range(total, self.shards(split), number)
        if self.settings.window is None:
            return _order(total, self.settings.seed, split)[part]
        return windowed(total, self.settings.window, part, self.settings.seed, _stream(split))

    def differences(self, other: "Plan") -> list[str]:
        """A phrase for each setting that makes `other` write other bytes than this plan; empty where none does."""
        ours, theirs = self._shaping(), other._shaping()
        if self.splits != other.splits or self.keep != other.keep:
            # The fingerprint covers the chosen splits and columns, so with others it says nothing about the source.
            ours["source"], theirs["source"] = self.source, other.source
        for name in ours.keys() ^ theirs.keys():  # a library that one of them does not name
            ours.setdefault(name, "none")
            theirs.setdefault(name, "none")
        differing = [name for name in ours if ours[name] != theirs[name]]
        if "source" in differing:
            ours["source"], theirs["source"] = (f"{plan.source} ({plan.fingerprint[:8]})" for plan in (self, other))
        return [f"{name} {ours[name]} there, {theirs[name]} here" for name in differing]

    @property
    def digest(self) -> str:
        """The same for all plans that make the same bytes."""
        return hashlib.sha256(json.dumps(self._shaping(), sort_keys=True).encode()).hexdigest()

    @classmethod
    def of_manifest(cls, manifest: Manifest, libraries: Mapping[str, str], program_version: str) -> "Plan":
        """The plan that a finished data set was made by; the versions are given, not the manifest's."""
        return cls(
            source=manifest.source,
            fingerprint=manifest.fingerprint,
            splits={name: split.samples + split.rejects for name, split in manifest.splits.items()},
            settings=manifest.settings,
            program_version=program_version,
            libraries=libraries,
            keep=tuple(manifest.columns),
        )

    @classmethod
    def of_source(cls, source: "Source", settings: Settings) -> "Plan":
        """The plan for a source, with this program and the libraries that are installed."""
        from preprocess.sources.source import printable

        return cls(
            source=printable(source.name),
            fingerprint=source.fingerprint,
            splits={split: source.num_rows(split) for split in source.splits},
            settings=settings,
            program_version=version("shardfeed") or NOT_INSTALLED,
            libraries={name: version(name) or NOT_INSTALLED for name in LIBRARIES},
            keep=source.keep,
        )

    def settings_in_words(self) -> dict[str, str]:
        """The settings that shape the shards, by the name of their option."""
        settings = self.settings
        return {
            "--short-side": "--original" if settings.short_side is None else str(settings.short_side),
            "--encoding": settings.encoding,
            "--quality": str(settings.quality) if settings.encoding == "jpeg" else "none",
            "--shard-size": str(settings.shard_size),
            "--seed": str(settings.seed),
            "--order": "global" if settings.window is None else f"source (windows of {settings.window:,} rows)",
        }

    def write(self, path: Path) -> None:
        """Writes the plan as JSON, synced to disk. A plan that another job wrote first stays.

        The file appears whole or not at all.
        """
        beside = path.with_name(f"{path.name}.{socket.gethostname()}.{os.getpid()}")
        with replacing(beside) as file:
            file.write((json.dumps(dataclasses.asdict(self), indent=1) + "\n").encode())
        try:
            # Unlike a rename, a link never replaces what another job wrote first; it is atomic on NFS too.
            os.link(beside, path)
        except FileExistsError:
            pass
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            if not path.exists():
                beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
        sync_directory(path.parent)

    @classmethod
    def read(cls, path: Path) -> "Plan":
        """Reads a plan. Raises ShardfeedError where it is damaged, FileNotFoundError where there is none."""
        try:
            content = json.loads(path.read_bytes())
            keep = tuple(content.get("keep", ()))
            plan = cls(**{**content, "settings": Settings(**content["settings"]), "keep": keep})
            plan._check_types()
            return plan
        except (ValueError, KeyError, TypeError, AttributeError, UsageError) as error:
            raise ShardfeedError(
                f"{path} is damaged ({error}): remove {path.parent.parent} and start again, or give another directory"
            ) from None

    def _check_types(self) -> None:
        for name in ("source", "fingerprint", "program_version"):
            if not isinstance(getattr(self, name), str):
                raise TypeError(f"{name} is no string")
        if not all(type(rows) is int and rows > 0 for rows in self.splits.values()):
            raise TypeError("splits holds something else than numbers of rows")
        if not all(isinstance(column, str) for column in self.keep):
            raise TypeError("keep holds something else than names")
        if not all(isinstance(version, str) for version in self.libraries.values()):
            raise TypeError("libraries holds something else than versions")

    def _shaping(self) -> dict[str, str]:
        return {
            "source": self.fingerprint,
            "--splits": " ".join(f"{split} ({rows:,} rows)" for split, rows in self.splits.items()),
            **self.settings_in_words(),
            **({"--keep": " ".join(self.keep)} if self.keep else {}),
            "shardfeed": self.program_version,
            **{name: self.libraries.get(name, "none") for name in sorted(self.libraries)},
        }


def shard_count(rows: int, shard_size: int) -> int:
    """The number of shards that `rows` rows need, at most `shard_size` in each."""
    return -(-rows // shard_size)


def shard_range(rows: int, shards: int, number: int) -> slice:
    """Positions of shard `number` where `rows` rows are cut into `shards` shards whose lengths differ by at most one.

    The longer shards come first. Raises ValueError for a number out of range.
    """
    if not 0 <= number < shards:
        raise ValueError(f"shard {number} of {shards} does not exist")
    length, longer = divmod(rows, shards)
    start = number * length + min(number, longer)
    return slice(start, start + length + (number < longer))


def windowed(rows: int, window: int, part: slice, seed: int, *stream: int) -> npt.NDArray[np.int64]:
    """Positions `part` of range(rows) in which each window of `window` rows is shuffled; the last may be shorter.

    Only the windows that `part` touches are shuffled.
    """
    first = part.start // window
    last = -(-part.stop // window)
    order = [
        start + permutation(min(window, rows - start), seed, *stream, start // window)
        for start in range(first * window, last * window, window)
    ]
    shift = first * window
    return np.concatenate([np.empty(0, np.int64), *order])[part.start - shift : part.stop - shift]


@functools.lru_cache(maxsize=1)
def _order(rows: int, seed: int, split: str) -> npt.NDArray[np.int64]:
    return permutation(rows, seed, _stream(split))


def _stream(split: str) -> int:
    # From the split's name, not its position: leaving out one split must not reorder the others.
    return zlib.crc32(split.encode())
