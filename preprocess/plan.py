"""Which source rows go to which shard: a pure function, written down before the first shard.

The rows of each split are put into a seeded order of the whole split and cut into shards whose lengths
differ by at most one. Neither the number of workers nor their speed has a say, so a job that was killed
goes on exactly where it stood, and any shard can be made again alone.
"""

import dataclasses
import functools
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shards.atomic import replacing
from shards.errors import ShardfeedError
from shards.hashing import permutation
from shards.layout import check_split_name
from shards.manifest import Settings


@dataclass(frozen=True)
class Plan:
    """All that decides what a job writes. `splits`: number of source rows of each; `libraries`: versions."""

    source: str
    fingerprint: str
    splits: Mapping[str, int]
    settings: Settings
    program_version: str
    libraries: Mapping[str, str]

    def __post_init__(self) -> None:
        for split in self.splits:
            check_split_name(split)

    @property
    def tasks(self) -> list[tuple[str, int]]:
        """Every shard to be written, as (split, number)."""
        return [(split, number) for split in self.splits for number in range(self.shards(split))]

    def shards(self, split: str) -> int:
        """Number of shards of a split: as few as its rows need."""
        return shard_count(self.splits[split], self.settings.shard_size)

    def rows(self, split: str, number: int) -> npt.NDArray[np.int64]:
        """The source rows of one shard, in the order in which they are stored."""
        order = _order(self.splits[split], self.settings.seed, split)
        return order[shard_range(self.splits[split], self.shards(split), number)]

    def differences(self, other: "Plan") -> list[str]:
        """What would make `other` write other bytes than this plan: a phrase each, empty if nothing would."""
        ours, theirs = self._shaping(), other._shaping()
        if self.splits != other.splits:
            # The fingerprint covers the splits chosen; others make it differ and say nothing about the source.
            ours["source"], theirs["source"] = self.source, other.source
        differing = [name for name in ours if ours[name] != theirs[name]]
        if "source" in differing:
            ours["source"], theirs["source"] = (f"{plan.source} ({plan.fingerprint[:8]})" for plan in (self, other))
        return [f"{name} {ours[name]} there, {theirs[name]} here" for name in differing]

    def write(self, path: Path) -> None:
        """Writes the plan as JSON: atomically, synced to disk."""
        with replacing(path) as file:
            file.write((json.dumps(dataclasses.asdict(self), indent=1) + "\n").encode())

    @classmethod
    def read(cls, path: Path) -> "Plan":
        """Reads what `write` wrote. Raises ShardfeedError where it is damaged, FileNotFoundError where it is not."""
        try:
            content = json.loads(path.read_bytes())
            return cls(**{**content, "settings": Settings(**content["settings"])})
        except (ValueError, KeyError, TypeError) as error:
            raise ShardfeedError(
                f"{path} is damaged ({error}): delete the directory that holds it and start again"
            ) from None

    def _shaping(self) -> dict[str, str]:
        settings = self.settings
        return {
            "source": self.fingerprint,
            "--splits": " ".join(f"{split} ({rows:,} rows)" for split, rows in self.splits.items()),
            "--short-side": "--original" if settings.short_side is None else str(settings.short_side),
            "--quality": str(settings.quality),
            "--shard-size": str(settings.shard_size),
            "--seed": str(settings.seed),
            "shardfeed": self.program_version,
            **{name: self.libraries.get(name, "none") for name in sorted(self.libraries)},
        }


def shard_count(rows: int, shard_size: int) -> int:
    """How many shards of at most `shard_size` rows hold `rows`."""
    return -(-rows // shard_size)


def shard_range(rows: int, shards: int, number: int) -> slice:
    """Positions of shard `number` when `rows` are cut into `shards` pieces whose lengths differ by at most one.

    The longer pieces come first. Raises ValueError for a number that is not one of the shards.
    """
    if not 0 <= number < shards:
        raise ValueError(f"shard {number} of {shards} does not exist")
    length, longer = divmod(rows, shards)
    start = number * length + min(number, longer)
    return slice(start, start + length + (number < longer))


@functools.lru_cache(maxsize=1)
def _order(rows: int, seed: int, split: str) -> npt.NDArray[np.int64]:
    # The name and not the position of a split: leaving one out must not reorder the others.
    return permutation(rows, seed, zlib.crc32(split.encode()))
