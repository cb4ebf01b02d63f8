"""Several splits as one: `concatenate` holds each of their samples once, `mix` draws from them in fixed proportions.

    both = concatenate([first, second])
    mixed = mix({first: 3, second: 1})    # three images of `first` for each of `second`

Nothing is copied: the joined split's index is those of the parts one after the other, and its shards are theirs.
"""

import dataclasses
import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Never

import numpy as np
import numpy.typing as npt

from shards.common.arguments import shown
from shards.common.errors import UsageError
from shards.dataset.split import Origin, Split
from shards.format.index import Index
from shards.format.manifest import SplitInfo


@dataclass(frozen=True, repr=False, eq=False)
class JoinedSplit(Split):
    """Splits with the same classes, one after the other.

    `parts`: these splits. `takes`: how many samples an epoch draws of each; None: all of them.
    """

    parts: tuple[Split, ...] = ()
    takes: tuple[int, ...] | None = None

    @property
    def place(self) -> str:
        """The directories or URLs of the parts, for people."""
        return ", ".join(dict.fromkeys(part.place for part in self.parts))

    @property
    def part_identity(self) -> int:
        """A number that differs for other parts, another order of them, other proportions and another view; 48 bits."""
        sizes = [len(part) for part in self.parts]
        what = f"{self.manifest.fingerprint} {sizes} {self.takes} {super().part_identity}"
        return int.from_bytes(hashlib.sha256(what.encode()).digest()[:6], "little")

    def how_to_mend(self) -> str:
        """What makes damaged files of the parts again, in words."""
        return ", or ".join(dict.fromkeys(part.how_to_mend() for part in self.parts))

    @property
    def shard_paths(self) -> list[Path]:
        """The shards, in order. Raises UsageError where a part is remote."""
        return [path for part in self.parts for path in part.shard_paths]

    def shard_place(self, number: int) -> str:
        """The path or the URL of a shard, for people."""
        part = int(np.searchsorted(self._starts, number, "right")) - 1
        return self.parts[part].shard_place(number - int(self._starts[part]))

    def remote_shards(self) -> Never:
        """Raises UsageError: the parts have them."""
        raise UsageError(f"{self!r} has shards in several places: ask its parts for them")

    @cached_property
    def _starts(self) -> npt.NDArray[np.int64]:
        """The number of each part's first shard."""
        return np.cumsum([0, *(len(part.info.shards) for part in self.parts)])[:-1]

    def _whole_index(self) -> Index:
        return Index.concatenate(
            [
                dataclasses.replace(part.index, shard=part.index.shard + np.int32(start))
                for part, start in zip(self.parts, self._starts, strict=True)
            ]
        )

    def _whole_keys(self) -> npt.NDArray[np.object_]:
        return np.concatenate([part.keys() for part in self.parts])

    def _whole_column(self, name: str) -> npt.NDArray[Any]:
        return np.concatenate([part.column(name) for part in self.parts])

    def _part(self, ids: npt.NDArray[np.int64], title: str, **changes: Any) -> Split:
        if self.takes is not None:
            raise UsageError(f"a mix cannot be divided: choose parts of its splits first, and mix these ({title})")
        return super()._part(ids, title, **changes)


def concatenate(splits: Sequence[Split]) -> JoinedSplit:
    """The samples of several splits as one split, in the order of the splits.

    Raises UsageError for splits with other classes, or of which some are stored decoded and others are not.
    """
    return _joined(splits, "concatenate")


def _joined(splits: Sequence[Split], what: str) -> JoinedSplit:
    """The splits as one, for the function `what`."""
    parts = _checked(splits, what)
    first, title = parts[0], " and ".join(part.title for part in parts)
    settings = first.manifest.settings
    if any(part.manifest.settings.short_side != settings.short_side for part in parts):
        settings = dataclasses.replace(settings, short_side=None)
    info = SplitInfo(
        samples=sum(len(part) for part in parts),
        rejects=sum(part.info.rejects for part in parts),
        shards=tuple(shard for part in parts for shard in part.info.shards),
        checksums=all(part.info.checksums for part in parts),
    )
    manifest = dataclasses.replace(
        first.manifest,
        source=", ".join(dict.fromkeys(part.manifest.source for part in parts)),
        fingerprint=hashlib.sha256("\n".join(_identities(parts)).encode()).hexdigest(),
        class_names=first.class_names,
        columns=_common_columns(parts),
        settings=settings,
        splits={title: info},
    )
    return JoinedSplit(first.root, title, manifest, _origin(parts), parts=parts)


def mix(proportions: Mapping[Split, float]) -> JoinedSplit:
    """Splits of which an epoch of a Loader holds images in these proportions, in any unit.

    An epoch is as long as it can be without an image that comes twice: it holds one split whole, or nearly, and of the
    others a random part, another one in each epoch. Raises UsageError as `concatenate` does, and for proportions that
    are not above 0.
    """
    if not isinstance(proportions, Mapping):
        raise UsageError(f"mix takes a mapping of splits to proportions, not {shown(proportions)}")
    joined = _joined(list(proportions), "mix")
    shares = list(proportions.values())
    for share in shares:
        if isinstance(share, bool) or not isinstance(share, int | float) or not (0 < share < math.inf):
            raise UsageError(f"the proportions of a mix must be numbers above 0, not {shown(share)}")
    sizes = [len(part) for part in joined.parts]
    longest = min(size / share for size, share in zip(sizes, shares, strict=True))
    # What rounding takes from a whole number must not cost a sample.
    takes = tuple(
        min(size, max(1, math.floor(longest * share * (1 + 1e-12)))) for size, share in zip(sizes, shares, strict=True)
    )
    return dataclasses.replace(joined, takes=takes)


def _checked(splits: Any, what: str) -> tuple[Split, ...]:
    if not isinstance(splits, Sequence) or not splits or not all(isinstance(each, Split) for each in splits):
        kind = "a mapping of splits to proportions" if what == "mix" else "a list of splits"
        raise UsageError(f"{what} takes {kind}, not {shown(splits)}")
    first = splits[0]
    for split in splits:
        if not len(split):
            raise UsageError(f"{split!r} has no sample to {what}")
        if isinstance(split, JoinedSplit) and split.takes is not None:
            raise UsageError(f"{split!r} is a mix already: give all splits and proportions at once")
        if split.class_names != first.class_names:
            raise UsageError(
                f"{split!r} has other classes than {first!r}: Split.where and Split.map_classes give both the same"
            )
        if split.manifest.settings.encoding != first.manifest.settings.encoding:
            raise UsageError(f"{split!r} is stored as other images than {first!r}: JPEGs and raw pixels do not mix")
    return tuple(splits)


def _identities(parts: Sequence[Split]) -> Iterator[str]:
    for part in parts:
        yield f"{part.manifest.fingerprint} {part.name} {part.part_identity}"


def _common_columns(parts: Sequence[Split]) -> dict[str, Any]:
    """The kept columns that all parts have, under one type."""
    shared = set.intersection(*(set(part.manifest.columns.items()) for part in parts))
    return dict(sorted(shared))


def _origin(parts: Sequence[Split]) -> Origin | None:
    """That of the first remote part: the loader asks whether and where shards are cached."""
    return next((part.origin for part in parts if part.origin is not None), None)
