"""Which members of a tar are one sample.

A sample is what consecutive members with the same key are, as webdataset reads tars: the key is a name up to the first
dot of its last part, the rest is the extension. Where no extension is that of an image, the last dot counts: `a.b.jpg`
and `a.b.cls` are the sample `a.b`.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from shards.common.terminal import counted
from shards.format.members import Damaged, Member

# Extensions of images, the preferred one first.
IMAGES = ("jpg", "jpeg", "png", "webp")
# webdataset keeps names like __key__ for its own purposes.
_META = re.compile(r"__[^/]*__(?:$|/)")


class Part(NamedTuple):
    """A member of a sample: its extension, where it lies, and its first bytes where they were read on the way."""

    ending: str
    member: Member
    content: bytes | None = None


@dataclass
class Names:
    """What is to be said of the names in a tar.

    `strays`: of members that are in no sample; `keys`: all so far; `twice`: those that came before.
    """

    strays: list[str] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    twice: list[str] = field(default_factory=list)

    def take(self, key: str) -> None:
        """Takes note of the key of a sample."""
        if key in self.keys:
            self.twice.append(key)
        self.keys.add(key)

    def notes(self) -> Iterator[str]:
        """A line for what is odd."""
        if self.strays:
            have = counted(len(self.strays), "member has", "members have")
            yield f"{have} no extension, or a name for webdataset alone: {self.strays[0]}"
        if self.twice:
            yield f"{counted(len(self.twice), 'key comes', 'keys come')} twice, and each is used: {self.twice[0]}"
        if not self.keys:
            yield "it holds no samples"


def divided(name: str) -> tuple[str, str] | None:
    """The key and the extension, in small letters, of a member of this name; None for one that is in no sample."""
    folder, slash, file = name.rpartition("/")
    stem, dot, ending = file.partition(".")
    if not (stem and dot and ending) or _META.match(name):
        return None
    return folder + slash + stem, ending.lower()


def samples(parts: Iterable[tuple[str, Part]], images: Sequence[str] = IMAGES) -> Iterator[tuple[str, list[Part]]]:
    """Each sample's key and members. `parts`: members with the keys that `divided` gives, in the order of the tar.

    Where `parts` raises Damaged, the members before that are a sample still.
    """
    key, found = "", list[Part]()
    try:
        for name, part in parts:
            if name != key and found:
                yield from _by_last_dot(key, found, images)
                found = []
            key = name
            found.append(part)
    except Damaged:
        yield from _by_last_dot(key, found, images)
        raise
    yield from _by_last_dot(key, found, images)


def _by_last_dot(key: str, parts: list[Part], images: Sequence[str]) -> Iterator[tuple[str, list[Part]]]:
    """The members of one key as one sample, or as several whose keys have dots."""
    if not parts:
        return
    if all("." not in part.ending for part in parts) or any(part.ending in images for part in parts):
        yield key, parts
        return
    longer: dict[str, list[Part]] = {}
    for part in parts:
        name, dot, last = part.ending.rpartition(".")
        longer.setdefault(key + dot + name, []).append(part._replace(ending=last))
    yield from longer.items()
