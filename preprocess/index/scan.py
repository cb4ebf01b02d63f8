"""One tar of others -> the rows of its samples, the images that must be cleaned, and what is of no use."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from zlib_ng.zlib_ng import crc32

from preprocess.images.convert import Reject, convert
from preprocess.index.in_place import Look, look, look_at_head
from shards.common.errors import UsageError
from shards.common.terminal import counted
from shards.format.members import Damaged, Member, members
from shards.format.tar import Sample
from shards.format.window import Window
from shards.indexed.labels import USUAL, Label, NoNumber
from shards.indexed.samples import IMAGES, Names, Part, divided, samples

# Bytes of an image file that is read: more than any that MAX_PIXELS allows is likely to have.
LARGEST = 256 << 20
# The first bytes of an image, which hold its header unless there is a colour profile or a thumbnail.
HEAD = 4096
LONGER_HEAD = 1 << 16

# Class numbers from here on are taken for something else: each has a name in the manifest.
MOST_CLASSES = 1_000_000

# How the reasons of samples begin that have no label.
UNLABELLED = ("it has no label", "its label is negative")

Row = tuple[int, int, int, int, int, int]
# Takes the key and the cleaned image of a sample that cannot stay.
Clean = Callable[[str, Sample], object]


@dataclass(frozen=True)
class Rules:
    """What a sample is made of.

    `images`: extensions, the preferred one first; `label`: None for a .cls and else the `label` of a .json; `names`: of
    the classes, if they are known, which labels may be, too; `whole`: read all bytes of each image, to compute its
    CRC-32 and see damage, not only its header.
    """

    images: tuple[str, ...] = IMAGES
    label: Label | None = None
    names: tuple[str, ...] | None = None
    whole: bool = True

    @property
    def labels(self) -> Sequence[Label]:
        """Where a label may stand, the preferred place first."""
        return USUAL if self.label is None else (self.label,)

    @cached_property
    def numbers(self) -> Mapping[str, int]:
        """The number of each class by its name."""
        return {name: number for number, name in enumerate(self.names or ())}

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
    damaged: bool = False


def scan(window: Window, rules: Rules, found: Scan, clean: Clean) -> Iterator[int]:
    """Reads the tar behind `window` into `found`; yields after each sample the bytes of the tar that are behind it.

    `clean` takes the key and the cleaned image of each sample that cannot stay.
    """
    names = Names()
    try:
        for key, parts in samples(_parts(window, rules, found.notes, names.strays), rules.images):
            names.take(key)
            try:
                _take(window, rules, found, clean, key, parts)
            except Reject as reason:
                found.rejects.append((key, str(reason)))
            yield parts[-1].member.offset
    except Damaged as damage:
        found.damaged = True
        found.notes.append(f"{damage}; the samples before that are used" if names.keys else str(damage))
    found.notes += names.notes()


def _parts(window: Window, rules: Rules, notes: list[str], strays: list[str]) -> Iterator[tuple[str, Part]]:
    """The members of all samples, with their keys; names of the others go into `strays`."""
    for member in members(window.read, window.length, notes):
        names = divided(member.name)
        if names is None:
            strays.append(member.name)
            continue
        key, ending = names
        yield key, Part(ending, member, _content(window, rules, ending, member))


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
        if part.ending in by_ending:
            raise Reject(f"it has two members {part.ending}")
        by_ending[part.ending] = part
    image = next((by_ending[ending] for ending in rules.images if ending in by_ending), None)
    label = next((each for each in rules.labels if each.member in by_ending), None)
    if image is None or label is None:
        what = f"no image ({', '.join(rules.images)})" if image is None else f"no label ({rules.label_members})"
        other = next((each for each in sorted(by_ending) if each not in rules.images), None)
        advice = f" (--label {other} takes that)" if image is not None and other is not None else ""
        raise Reject(f"it has {what}, only {', '.join(sorted(by_ending))}{advice}")
    number = _number(key, label, _all(window, by_ending[label.member], label.longest), rules)
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


def _number(key: str, label: Label, data: bytes, rules: Rules) -> int:
    """The label in a member's content. Raises Reject where there is none, or one that is to be passed over.

    Raises UsageError for a number beyond the names of the classes: all of its class would be lost.
    """
    try:
        number = label.number(data)
    except NoNumber as reason:
        number = rules.numbers.get(reason.text.decode("utf-8", "replace"))
        if number is None:
            advice = "--class-names FILE takes names" if rules.names is None else "--class-names has no such name"
            raise Reject(f"{reason} ({advice})") from None
    except ValueError as reason:
        raise Reject(str(reason)) from None
    if number is None:
        raise Reject(f"its json has no number under {label.field!r}")
    if number < 0:
        raise Reject("its label is negative, which stands for none")
    if rules.names is not None and number >= len(rules.names):
        raise UsageError(
            f"--class-names has {counted(len(rules.names), 'name')}, for labels from 0, and the label of {key} is "
            f"{number:,}: give a file with a line for each class"
        )
    if number >= MOST_CLASSES:
        raise Reject(f"its label is {number:,}, more than the last class has")
    return number


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
