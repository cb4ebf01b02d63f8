"""Tars of WebDataset as a source.

A sample is consecutive members of one key, the name up to the first dot of its last part; what follows is the ending.
The image is jpg, jpeg, png or webp. The label is the number in `cls`, else `label` in `json`; a negative one means that
the sample is left out. `_info.json` may give the label in json another name (splits.py).
"""

import dataclasses
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from tqdm import tqdm

from preprocess.sources.labels import plain_numbers
from preprocess.sources.source import Images, PassedOver, StoredSource, choose, printable, stored_source
from preprocess.sources.tars.members import Member, TableOfMembers, scan
from preprocess.sources.tars.splits import INFO, Tars
from shards.common.errors import ShardfeedError, UsageError
from shards.common.terminal import counted

IMAGES = ("jpg", "jpeg", "png", "webp")
MAX_LABEL = 1 << 20  # bytes of a cls or json file
# The rules of webdataset: how a name is divided, and names that are no samples.
_KEY = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)")
_META = re.compile(r"__[^/]*__($|/)")


@dataclass
class _Found:
    """What the tars of a split hold: its rows, and what is passed over.

    `jsons`: the json of each row, kept where columns are wanted. `unlabelled`: how many samples have no label, and
    `negative` a negative one; `first`: the first without.
    """

    table: TableOfMembers
    labels: list[int] = field(default_factory=list)
    others: list[PassedOver] = field(default_factory=list)
    jsons: list[Mapping[str, Any]] = field(default_factory=list)
    unlabelled: int = 0
    negative: int = 0
    first: str = ""


def open_tars(
    name: str, tars: Mapping[str, Tars], splits: Sequence[str] | None, columns: Sequence[str] = ()
) -> tuple[StoredSource, dict[str, dict[str, list[Any]]]]:
    """Scans the tars of a source; returns it, and the wanted `columns` of each split that its json files have.

    Raises UsageError for labels that are missing or no numbers, ShardfeedError for a tar that is damaged or not whole.
    """
    chosen = list(tars) if splits is None else choose(name, list(tars), splits)
    found = {split: _scan(tars[split], bool(columns)) for split in chosen}
    for split in chosen:
        if not found[split].labels and splits is None and found[split].unlabelled + found[split].negative:
            print(f"{name}: leaving out split {split}: it has no labels", file=sys.stderr)
            del found[split]
        else:
            _check(name, split, tars[split], found[split])
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


def _check(name: str, split: str, tars: Tars, found: _Found) -> None:
    """Raises UsageError where a split has no rows, or where some of its samples have no label."""
    if found.unlabelled:
        samples = counted(len(found.labels) + found.unlabelled, "sample")
        raise UsageError(
            f"{found.unlabelled:,} of {samples} in split {split} of {name} have no label (a number in cls, or "
            f"{tars.label or 'label'} in json), such as {found.first}"
        )
    if not found.labels:
        reason = f" ({found.others[0].reason})" if found.others else ""
        raise UsageError(f"split {split} of {name} has no image with a label: {_hint(tars)}{reason}")


def _scan(tars: Tars, keep: bool) -> _Found:
    found = _Found(TableOfMembers(tars.paths))
    total = None if tars.samples is None else sum(tars.samples)
    with tqdm(total=total, unit="images", desc="reading headers", disable=None) as bar:
        for number, path in enumerate(tars.paths):
            samples = 0
            with path.open("rb") as file:
                for key, files in _samples(scan(file, str(path)), path):
                    samples += 1
                    _add(found, tars, number, (file, key, files), keep)
            if tars.samples is not None and samples != tars.samples[number]:
                raise ShardfeedError(
                    f"{path} has {samples:,} samples, but {INFO} says {tars.samples[number]:,}: download it again"
                )
            bar.update(samples)
    return found


def _add(
    found: _Found, tars: Tars, number: int, sample: tuple[BinaryIO, str, Mapping[str, Member]], keep: bool
) -> None:
    """Adds a sample as a row, or to what is passed over."""
    file, key, files = sample
    name = f"{tars.paths[number].name}/{key}"
    image = next((ending for ending in IMAGES if ending in files), None)
    if image is None or not files[image].regular:
        endings = ", ".join(sorted(files))
        found.others.append(
            PassedOver(printable(name), f"passed over: no image among its files ({printable(endings)})")
        )
        return
    about = _json(file, name, files["json"]) if "json" in files and (keep or tars.label or "cls" not in files) else {}
    label = _number(file, name, files["cls"]) if "cls" in files and not tars.label else about.get(tars.label or "label")
    if label is not None and (type(label) is not int or label >= 2**63):
        raise UsageError(f"the label of {printable(name)} is {str(label)[:40]!r}, not a number")
    if label is None or label < 0:
        found.unlabelled += label is None
        found.negative += label is not None
        found.first = found.first or (printable(name) if label is None else "")
        reason = "it has no label" if label is None else f"its label is {label}"
        found.others.append(PassedOver(printable(f"{name}.{image}"), f"passed over: {reason}"))
        return
    found.table.add(f"{name}.{image}".encode("utf-8", "surrogateescape"), number, files[image])
    found.labels.append(label)
    if keep:
        found.jsons.append(about)


def _samples(members: Iterable[Member], path: Path) -> Iterator[tuple[str, dict[str, Member]]]:
    """The samples of a tar: their key, and their files by ending, in small letters."""
    key, files = "", dict[str, Member]()
    for member in members:
        name = member.name.decode("utf-8", "surrogateescape")
        parts = _KEY.fullmatch(name)
        if parts is None or _META.match(name):
            continue
        ending = parts[2].lower()
        if parts[1] != key:
            if files:
                yield key, files
            key, files = parts[1], {}
        if ending in files:
            raise ShardfeedError(f"{path} holds {printable(name)} twice in one sample: write the archive again")
        files[ending] = member
    if files:
        yield key, files


def _number(file: BinaryIO, name: str, member: Member) -> int:
    text = _read(file, name, member)
    try:
        return int(text.decode("ascii"))
    except ValueError:
        raise UsageError(f"the label of {printable(name)} is {text[:40]!r}, not a number") from None


def _json(file: BinaryIO, name: str, member: Member) -> Mapping[str, Any]:
    try:
        content = json.loads(_read(file, name, member))
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise ShardfeedError(f"the json of {printable(name)} is damaged, or no object: copy or download its tar again")
    return content


def _read(file: BinaryIO, name: str, member: Member) -> bytes:
    if member.size > MAX_LABEL or not member.regular:
        raise ShardfeedError(f"the cls or json of {printable(name)} is no file of less than {MAX_LABEL:,} bytes")
    return os.pread(file.fileno(), member.size, member.offset)


def _hint(tars: Tars) -> str:
    """What the first tar holds, in words."""
    with tars.paths[0].open("rb") as file:
        members = islice(scan(file, str(tars.paths[0])), 3)
        names = [printable(member.name.decode("utf-8", "surrogateescape")) for member in members]
    if names and all(name.endswith(".tar") for name in names):
        return (
            f"{tars.paths[0].name} holds other tars; of ILSVRC2012 give the directory that holds its archives, under "
            "their published names"
        )
    return f"{tars.paths[0].name} holds {', '.join(names) or 'nothing'}"
