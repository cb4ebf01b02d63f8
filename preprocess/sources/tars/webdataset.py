"""Tars of WebDataset as a source: what names them, their samples and their labels as in shards/indexed/.

A negative label means that the sample is left out, and so does a missing image.
"""

import dataclasses
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from preprocess.sources.labels import plain_numbers
from preprocess.sources.source import Images, PassedOver, StoredSource, choose, stored_source
from preprocess.sources.tars.members import TableOfMembers, say, scan
from shards.common.errors import ShardfeedError, UsageError
from shards.common.terminal import counted, progress_bar
from shards.format.members import Member
from shards.indexed.labels import JSON, USUAL, Label
from shards.indexed.samples import IMAGES, Names, Part, divided, samples
from shards.indexed.source import INFO, Source, SplitHint


@dataclass
class _Found:
    """What the tars of a split hold: its rows, and what is passed over.

    `jsons`: the json of each row, kept where columns are wanted. `unlabelled`: how many samples have no label, and
    `negative` a negative one; `first`: the first without. `notes`: what is to be said of whole tars, a line each.
    """

    table: TableOfMembers
    labels: list[int] = field(default_factory=list)
    others: list[PassedOver] = field(default_factory=list)
    jsons: list[Mapping[str, Any]] = field(default_factory=list)
    unlabelled: int = 0
    negative: int = 0
    first: str = ""
    notes: list[str] = field(default_factory=list)


def open_tars(
    name: str, tars: Source, splits: Sequence[str] | None, columns: Sequence[str] = ()
) -> tuple[StoredSource, dict[str, dict[str, list[Any]]]]:
    """Scans the tars of a source; returns it, and the wanted `columns` of each split that its json files have.

    Raises UsageError for labels that are missing or no numbers, ShardfeedError for a tar that is damaged or not whole.
    """
    chosen = list(tars.splits) if splits is None else choose(name, list(tars.splits), splits)
    found = {split: _scan(tars, split, bool(columns)) for split in chosen}
    say([note for each in found.values() for note in each.notes])
    for split in chosen:
        if not found[split].labels and splits is None and found[split].unlabelled + found[split].negative:
            print(f"{name}: leaving out split {split}: it has no labels", file=sys.stderr)
            del found[split]
        else:
            _check(name, split, tars, found[split])
    if not found:
        raise UsageError(f"{name} has no labelled images")
    class_names, labels = plain_numbers(
        name, "cls", {split: np.array(each.labels, np.int64) for split, each in found.items()}
    )
    images: dict[str, Images] = {split: each.table.images() for split, each in found.items()}
    source = stored_source(name, class_names, images, labels, hidden_allowed=False)
    values = {
        split: {column: [each.get(column) for each in found[split].jsons] for column in columns} for split in found
    }
    return dataclasses.replace(source, others={split: tuple(each.others) for split, each in found.items()}), values


def _check(name: str, split: str, tars: Source, found: _Found) -> None:
    """Raises UsageError where a split has no rows, or where some of its samples have no label."""
    if found.unlabelled:
        samples = counted(len(found.labels) + found.unlabelled, "sample")
        raise UsageError(
            f"{found.unlabelled:,} of {samples} in split {split} of {name} have no label (a number in "
            f"{' or '.join(map(str, _labels(tars, split)))}), such as {found.first}"
        )
    if not found.labels:
        reason = f" ({found.others[0].reason})" if found.others else ""
        raise UsageError(f"split {split} of {name} has no image with a label: {_hint(tars, split)}{reason}")


def _labels(tars: Source, split: str) -> Sequence[Label]:
    """Where the labels of a split may stand, the preferred place first."""
    field = tars.hints.get(split, SplitHint()).alt_label
    return (Label(JSON, field),) if field else USUAL


def _scan(tars: Source, split: str, keep: bool) -> _Found:
    paths = [Path(tars.directory) / tar.name for tar in tars.splits[split]]
    lengths = tars.hints.get(split, SplitHint()).shard_lengths
    if lengths is not None and len(lengths) != len(paths):
        raise ShardfeedError(f"{tars.directory}/{INFO} has shard_lengths that are no list of a number for each tar")
    found, labels = _Found(TableOfMembers(paths)), _labels(tars, split)
    with progress_bar(total=sum(lengths) if lengths else None, unit="images", desc="reading headers") as bar:
        for number, path in enumerate(paths):
            count, name, names, notes = 0, tars.splits[split][number].name, Names(), list[str]()
            with path.open("rb") as file:
                for key, parts in samples(_parts(scan(file, str(path), notes=notes), names.strays)):
                    count += 1
                    names.take(key)
                    _add(found, number, _Sample(file, f"{name}/{key}", parts), labels, keep)
            found.notes += [f"{name}: {note}" for note in (*notes, *names.notes())]
            if lengths is not None and count != lengths[number]:
                raise ShardfeedError(
                    f"{path} has {count:,} samples, but {INFO} says {lengths[number]:,}: download it again"
                )
            bar.update(count)
    return found


def _parts(members: Iterable[Member], strays: list[str]) -> Iterator[tuple[str, Part]]:
    """The members of all samples, with their keys; names of the others go into `strays`."""
    for member in members:
        names = divided(member.name)
        if names is None:
            strays.append(member.name)
        else:
            yield names[0], Part(names[1], member)


class _Sample:
    """One sample: its name for people, and its members by extension."""

    def __init__(self, file: BinaryIO, name: str, parts: Sequence[Part]) -> None:
        self.name = name
        self.members = {part.ending: part.member for part in parts}
        self._file = file
        if len(self.members) < len(parts):
            twice = next(part.ending for part in parts if self.members[part.ending] is not part.member)
            raise ShardfeedError(f"{file.name}: {name} has two members {twice}: write the archive again")

    def read(self, label: Label) -> bytes:
        """The content of the member of a label. Raises ShardfeedError where it is too long, or no file."""
        member = self.members[label.member]
        if member.size > label.longest or member.kind:
            raise ShardfeedError(f"the {label.member} of {self.name} is no file of at most {label.longest:,} bytes")
        return os.pread(self._file.fileno(), member.size, member.offset)


def _add(found: _Found, number: int, sample: _Sample, labels: Sequence[Label], keep: bool) -> None:
    """Adds a sample of the tar `number` as a row, or to what is passed over."""
    image = next((ending for ending in IMAGES if ending in sample.members), None)
    if image is None or sample.members[image].kind:
        what = f"no image among its files ({', '.join(sorted(sample.members))})"
        if image is not None:
            what = f"its {image} is {sample.members[image].kind}"
        found.others.append(PassedOver(sample.name, f"passed over: {what}"))
        return
    place = next((each for each in labels if each.member in sample.members), None)
    try:
        label = None if place is None else place.number(sample.read(place))
    except ValueError as error:
        raise ShardfeedError(f"{sample.name}: {error}") from None
    if label is None or label < 0:
        found.unlabelled += label is None
        found.negative += label is not None
        found.first = found.first or (sample.name if label is None else "")
        reason = "it has no label" if label is None else f"its label is {label}"
        found.others.append(PassedOver(f"{sample.name}.{image}", f"passed over: {reason}"))
        return
    found.table.add(f"{sample.name}.{image}", number, sample.members[image])
    found.labels.append(label)
    if keep:
        found.jsons.append(_json(sample))


def _json(sample: _Sample) -> Mapping[str, Any]:
    """The json of a sample; nothing where it has none. Raises ShardfeedError for one that cannot be read."""
    if JSON not in sample.members:
        return {}
    try:
        content = json.loads(sample.read(USUAL[1]))
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise ShardfeedError(f"{sample.name}: its json is damaged, or no object: copy or download its tar again")
    return content


def _hint(tars: Source, split: str) -> str:
    """What the first tar holds, in words."""
    path = Path(tars.directory) / tars.splits[split][0].name
    with path.open("rb") as file:
        names = [member.name for member in islice(scan(file, str(path)), 3)]
    if names and all(name.endswith(".tar") for name in names):
        return (
            f"{path.name} holds other tars; of ILSVRC2012 give the directory that holds its archives, under their "
            "published names"
        )
    return f"{path.name} holds {', '.join(names) or 'nothing'}"
