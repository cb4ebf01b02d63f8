"""One tar of others -> the rows of its samples, the images that must be cleaned, and what is of no use.

A sample is what consecutive members with the same key are, as webdataset reads tars: the key is a name up to the first
dot of its last part, the rest is the extension. Where no extension is that of an image, the last dot counts: `a.b.jpg`
and `a.b.cls` are the sample `a.b`.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from zlib_ng.zlib_ng import crc32

from preprocess.images.convert import Reject, convert
from preprocess.index.in_place import Look, look, look_at_head
from preprocess.index.labels import USUAL, Label
from shards.common.terminal import counted
from shards.format.members import Damaged, Member, members
from shards.format.tar import Sample
from shards.format.window import Window

# Bytes of an image file that is read: more than any that MAX_PIXELS allows is likely to have.
LARGEST = 256 << 20
# The first bytes of an image, which hold its header unless there is a colour profile or a thumbnail.
HEAD = 4096
LONGER_HEAD = 1 << 16

# webdataset keeps names like __key__ for its own purposes.
_META = re.compile(r"__[^/]*__(?:$|/)")

Row = tuple[int, int, int, int, int, int]
# A member of a sample: its extension, where it lies, and its first bytes where they were read on the way.
Part = tuple[str, Member, bytes | None]
# Takes the key and the cleaned image of a sample that cannot stay.
Clean = Callable[[str, Sample], object]


@dataclass(frozen=True)
class Rules:
    """What a sample is made of.

    `images`: extensions, the preferred one first; `label`: None for a .cls and else the `label` of a .json; `classes`:
    how many there are, if that is known; `whole`: read all bytes of each image, to compute its CRC-32 and see damage,
    not only its header.
    """

    images: tuple[str, ...] = ("jpg", "png", "webp", "jpeg")
    label: Label | None = None
    classes: int | None = None
    whole: bool = True

    @property
    def labels(self) -> Sequence[Label]:
        """Where a label may stand, the preferred place first."""
        return USUAL if self.label is None else (self.label,)

    @property
    def label_members(self) -> str:
        """The extensions of the members that may hold a label, for messages."""
        return ", ".join(label.member for label in self.labels)


@dataclass
class Scan:
    """What a tar holds.

    `rows`: (offset, size, label, width, height, crc32) of each sample that stays, `keys` their names. `rejects`: key
    and reason of each sample that is left out; `notes`: what else is to be said of the tar, a line each.
    """

    rows: list[Row] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    rejects: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    largest_label: int = -1


def scan(window: Window, rules: Rules, found: Scan, clean: Clean) -> Iterator[int]:
    """Reads the tar behind `window` into `found`; yields after each sample the bytes of the tar that are behind it.

    `clean` takes the key and the cleaned image of each sample that cannot stay.
    """
    seen, twice = set[str](), list[str]()
    try:
        for key, parts in _samples(window, rules, found.notes):
            if key in seen:
                twice.append(key)
            seen.add(key)
            try:
                _take(window, rules, found, clean, key, parts)
            except Reject as reason:
                found.rejects.append((key, str(reason)))
            yield parts[-1][1].offset
    except Damaged as damage:
        found.notes.append(f"{damage}; the samples before that are used")
    if twice:
        found.notes.append(f"{counted(len(twice), 'key comes', 'keys come')} twice, and each is used: {twice[0]}")


def _samples(window: Window, rules: Rules, notes: list[str]) -> Iterator[tuple[str, list[Part]]]:
    """Each sample's key and members."""
    key, parts = "", list[Part]()
    strays: list[str] = []
    try:
        for member in members(window.read, window.length, notes):
            folder, slash, file = member.name.rpartition("/")
            stem, dot, ending = file.partition(".")
            if not (stem and dot and ending) or _META.match(member.name):
                strays.append(member.name)
                continue
            name = folder + slash + stem
            if name != key and parts:
                yield from _divided(key, parts, rules)
                parts = []
            key, ending = name, ending.lower()
            parts.append((ending, member, _content(window, rules, ending, member)))
    except Damaged:
        yield from _divided(key, parts, rules)
        raise
    yield from _divided(key, parts, rules)
    if strays:
        have = counted(len(strays), "member has", "members have")
        notes.append(f"{have} no extension, or a name for webdataset alone: {strays[0]}")


def _content(window: Window, rules: Rules, ending: str, member: Member) -> bytes | None:
    """What of a member is read on the way: labels, and images or, if that is enough, their headers."""
    if member.kind:
        return None
    if ending in rules.images:
        return window.read(member.offset, _first(member.size, rules)) if member.size <= LARGEST else None
    if any(ending == label.member and member.size <= label.longest for label in rules.labels):
        return window.read(member.offset, member.size)
    return None


def _first(size: int, rules: Rules) -> int:
    return size if rules.whole else min(size, HEAD)


def _divided(key: str, parts: list[Part], rules: Rules) -> Iterator[tuple[str, list[Part]]]:
    """The members of one key as one sample, or as several whose keys have dots."""
    if not parts:
        return
    if all("." not in ending for ending, _, _ in parts) or any(ending in rules.images for ending, _, _ in parts):
        yield key, parts
        return
    longer: dict[str, list[Part]] = {}
    for ending, member, content in parts:
        name, dot, last = ending.rpartition(".")
        longer.setdefault(key + dot + name, []).append((last, member, content))
    yield from longer.items()


def _take(
    window: Window,
    rules: Rules,
    found: Scan,
    clean: Clean,
    key: str,
    parts: list[Part],
) -> None:
    """Adds a sample to `found`, or hands its cleaned image to `clean`. Raises Reject."""
    by_ending: dict[str, Part] = {}
    for part in parts:
        if part[0] in by_ending:
            raise Reject(f"it has two members {part[0]}")
        by_ending[part[0]] = part
    image = next((by_ending[ending] for ending in rules.images if ending in by_ending), None)
    label = next((each for each in rules.labels if each.member in by_ending), None)
    if image is None or label is None:
        what = f"no image ({', '.join(rules.images)})" if image is None else f"no label ({rules.label_members})"
        raise Reject(f"it has {what}, only {', '.join(sorted(by_ending))}")
    number = label.read(_all(window, by_ending[label.member], label.longest), rules.classes)
    ending, member, head = image
    if member.kind:
        raise Reject(f"its {ending} is {member.kind}")
    if not member.size:
        raise Reject("the file is empty (0 bytes)")
    data = _all(window, image, LARGEST) if rules.whole or head is None else head
    seen = look(data) if rules.whole else _look_ahead(window, member, data)
    if seen is not None:
        checksum = crc32(data) if rules.whole else 0
        found.rows.append((member.offset, member.size, number, seen.width, seen.height, checksum))
        found.keys.append(key)
        found.kinds[seen.kind] += 1
        found.largest_label = max(found.largest_label, number)
        return
    if len(data) < member.size:
        data = window.fetch(member.offset, member.size)
    made = convert(data, None, 90, "raw")
    found.kinds[made.kind] += 1
    found.largest_label = max(found.largest_label, number)
    clean(key, Sample(key, made.data, number, made.width, made.height))


def _all(window: Window, part: Part, longest: int) -> bytes:
    """The content of a member of at most `longest` bytes. Raises Reject where it has more, or is no file."""
    ending, member, content = part
    if member.kind:
        raise Reject(f"its {ending} is {member.kind}")
    if member.size > longest:
        raise Reject(f"its {ending} has {member.size:,} bytes, more than any has")
    return window.fetch(member.offset, member.size) if content is None else content


def _look_ahead(window: Window, member: Member, head: bytes) -> Look | None:
    """What the header of an image says; a longer head is read where the first bytes do not tell."""
    seen = look_at_head(head, member.size)
    if seen is None and len(head) < member.size:
        head = window.read(member.offset, min(member.size, LONGER_HEAD))
        seen = look_at_head(head, member.size)
    if seen is None:
        data = head if len(head) == member.size else window.fetch(member.offset, member.size)
        seen = look(data)
    return seen
