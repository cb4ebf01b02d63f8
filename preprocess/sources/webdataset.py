"""Tars of WebDataset as a source: a directory of *.tar, or a pattern such as DIR/imagenet1k-train-{0000..1023}.tar.

A sample is consecutive members of one key, the name up to the first dot of its last part; what follows is the ending.
The image is jpg, jpeg, png or webp. The label is the number in `cls`, else `label` in `json`; a negative one means that
the sample is left out. timm's `_info.json` says which tars make which split, how many samples each has, and perhaps
another name of the label (`alt_label`).
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
from braceexpand import braceexpand
from tqdm import tqdm

from preprocess.sources.labels import plain_numbers
from preprocess.sources.members import Member, TableOfMembers, scan
from preprocess.sources.source import Images, PassedOver, StoredSource, choose, printable, stored_source
from shards.common.errors import ShardfeedError, UsageError
from shards.common.terminal import counted
from shards.dataset import TRAINING, VALIDATION

INFO = "_info.json"
IMAGES = ("jpg", "jpeg", "png", "webp")
MAX_TARS = 100_000
MAX_LABEL = 1 << 20  # bytes of a cls or json file
# The rules of webdataset: how a name is divided, and names that are no samples.
_KEY = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)")
_META = re.compile(r"__[^/]*__($|/)")


@dataclass(frozen=True)
class Tars:
    """The tars of one split, in order. `samples`: how many each holds, where `_info.json` says; `label`: its name."""

    paths: tuple[Path, ...]
    samples: tuple[int, ...] | None = None
    label: str = ""


@dataclass
class _Found:
    """What the tars of a split hold: its rows, and what is passed over.

    `jsons`: the json of each row, kept where columns are wanted. `unlabelled`: samples without a label, and the first.
    """

    table: TableOfMembers
    labels: list[int] = field(default_factory=list)
    others: list[PassedOver] = field(default_factory=list)
    jsons: list[Mapping[str, Any]] = field(default_factory=list)
    unlabelled: int = 0
    first: str = ""


def is_pattern(name: str) -> bool:
    """Whether a source is a pattern of tars with braces, or one tar."""
    return name.endswith(".tar") and ("{" in name or Path(name).expanduser().is_file())


def pattern_tars(pattern: str) -> dict[str, Tars]:
    """The tars that a pattern names, by split. Raises UsageError where one does not exist."""
    names = list(islice(braceexpand(pattern), MAX_TARS + 1))
    if len(names) > MAX_TARS:
        raise UsageError(f"{pattern} are more than {MAX_TARS:,} tars: check the pattern")
    paths = [Path(name).expanduser() for name in names]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise UsageError(f"{len(missing):,} of the {len(paths):,} tars {pattern} do not exist, such as {missing[0]}")
    return _by_name(paths)


def directory_tars(root: Path) -> dict[str, Tars]:
    """The tars in a directory, by split; may be none. Raises ShardfeedError for a damaged `_info.json`."""
    paths = sorted(path for path in root.glob("*.tar") if path.is_file() and not path.name.startswith("."))
    return _by_info(root) if paths and (root / INFO).is_file() else _by_name(paths)


def open_tars(
    name: str, tars: Mapping[str, Tars], splits: Sequence[str] | None, columns: Sequence[str] = ()
) -> tuple[StoredSource, dict[str, dict[str, list[Any]]]]:
    """Scans the tars of a source; returns it, and the wanted `columns` of each split that its json files have.

    Raises UsageError for labels that are missing or no numbers, ShardfeedError for a tar that is damaged or not whole.
    """
    chosen = list(tars) if splits is None else choose(name, list(tars), splits)
    found = {split: _scan(tars[split], bool(columns)) for split in chosen}
    for split in chosen:
        if not found[split].labels and splits is None and found[split].others:
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
        if label is None:
            found.unlabelled += 1
            found.first = found.first or printable(name)
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


def _by_name(paths: Sequence[Path]) -> dict[str, Tars]:
    """The tars by the split that is a word of their name (imagenet1k-validation-00.tar); the others are train."""
    splits: dict[str, list[Path]] = {}
    for path in paths:
        words = re.split(r"[^a-z]+", path.name.lower())
        splits.setdefault(next((word for word in words if word in VALIDATION), TRAINING), []).append(path)
    return {split: Tars(tuple(paths)) for split, paths in splits.items()}


def _by_info(root: Path) -> dict[str, Tars]:
    """The splits as timm's `_info.json` says. Raises ShardfeedError where it is damaged or tars are missing."""
    path = root / INFO
    try:
        splits = {str(name): _tars(root, each) for name, each in json.loads(path.read_bytes())["splits"].items()}
        if not splits:
            raise ValueError("no splits")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ShardfeedError(
            f"{path} is damaged ({type(error).__name__}: {reason}): download it again, or remove it, and the splits go "
            "by the names of the tars"
        ) from None
    missing = [tar.name for each in splits.values() for tar in each.paths if not tar.is_file()]
    there = {split: each for split, each in splits.items() if any(tar.is_file() for tar in each.paths)}
    if wanted := [tar.name for each in there.values() for tar in each.paths if not tar.is_file()]:
        raise ShardfeedError(f"{len(wanted):,} tars that {path} names are missing, such as {wanted[0]}: download them")
    if not there:
        raise ShardfeedError(f"all {len(missing):,} tars that {path} names are missing, such as {missing[0]}")
    for split in splits.keys() - there.keys():
        print(f"{root}: leaving out split {split}: none of its tars is here", file=sys.stderr)
    return there


def _tars(root: Path, info: Mapping[str, Any]) -> Tars:
    names, lengths, label = info["filenames"], info.get("shard_lengths"), info.get("alt_label") or ""
    if not isinstance(label, str) or not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise ValueError("filenames or alt_label are not names")
    if lengths is not None and not (len(lengths) == len(names) and all(type(length) is int for length in lengths)):
        raise ValueError("shard_lengths is no list of a number for each tar")
    return Tars(tuple(root / name for name in names), None if lengths is None else tuple(lengths), label)


def _hint(tars: Tars) -> str:
    """What the first tar holds, in words."""
    with tars.paths[0].open("rb") as file:
        members = islice(scan(file, str(tars.paths[0])), 3)
        names = [printable(member.name.decode("utf-8", "surrogateescape")) for member in members]
    if names and all(name.endswith(".tar") for name in names):
        return f"{tars.paths[0].name} holds other tars; the archives of ILSVRC2012 are told by their published names"
    return f"{tars.paths[0].name} holds {', '.join(names) or 'nothing'}"
