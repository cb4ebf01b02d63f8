"""ILSVRC2012 as it is distributed: an archive of a thousand archives, a flat one, and the devkit. Nothing is unpacked.

    DIR/ILSVRC2012_img_train.tar           <wnid>.tar for each class, which hold the images
    DIR/ILSVRC2012_img_val.tar             the validation images
    DIR/ILSVRC2012_devkit_t12.tar.gz       their classes, and the names of all

Rows are in the order of torchvision's folders: by WNID and then by the image's name; of validation by name.
"""

import dataclasses
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from preprocess.sources.folder import class_folders
from preprocess.sources.imagenet.devkit import DEVKIT, WNID, Devkit, find_devkit, read_devkit
from preprocess.sources.labels import union
from preprocess.sources.listed import Listed
from preprocess.sources.source import PassedOver, StoredSource, choose, named_classes, stored_source
from preprocess.sources.tars.members import MemberImages, TableOfMembers, say, scan
from shards.common.errors import ShardfeedError, UsageError
from shards.common.terminal import progress_bar
from shards.format.members import Member

TRAIN, VAL = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
ARCHIVES = {"train": TRAIN, "val": VAL}
# The lengths that image-net.org's archives have.
PUBLISHED = {TRAIN: 147_897_477_120, VAL: 6_744_924_160}


def is_archives(root: Path) -> bool:
    """Whether a directory holds one of the two archives, and not what was unpacked from one, which is used then."""
    packed = [archive for archive in ARCHIVES.values() if (root / archive).is_file()]
    unpacked = any((root / split).is_dir() and class_folders(root / split) for split in ARCHIVES)
    if packed and unpacked:
        print(f"{root}: taking the images from its folders, and none from {' and '.join(packed)}", file=sys.stderr)
    return bool(packed) and not unpacked


def open_archives(name: str, root: Path, splits: Sequence[str] | None, val_labels: Path | None) -> StoredSource:
    """Opens the archives in a directory, as the splits "train" and "val".

    `val_labels`: a file with the classes of the validation images, in place of the devkit. Raises UsageError where
    labels are missing, ShardfeedError for an archive that is damaged or not whole.
    """
    there = [split for split, archive in ARCHIVES.items() if (root / archive).is_file()]
    chosen = there if splits is None else choose(name, there, splits)
    if val_labels is not None and "val" not in chosen:
        raise UsageError(f"--val-labels is for {VAL}, which is not converted here")
    path = find_devkit(root)
    devkit = None if path is None else read_devkit(path)
    if "val" in chosen and devkit is None and val_labels is None:
        raise UsageError(
            f"{VAL} holds no labels: put {DEVKIT}.tar.gz into {root} too, or give --val-labels FILE"
            + (", or convert the rest with --splits train" if "train" in there else "")
        )
    images: dict[str, MemberImages] = {}
    others: dict[str, tuple[PassedOver, ...]] = {}
    wnids: list[str] = []
    counts: list[int] = []
    # The short one first, whose faults then show before minutes of reading.
    if "val" in chosen:
        images["val"], others["val"] = _flat(root / VAL)
        _check_count(root, len(images["val"]), devkit if val_labels is None else None)
    if "train" in chosen:
        images["train"], others["train"], wnids, counts = _nested(root / TRAIN, devkit)
    classes = sorted(devkit.words) if devkit else wnids or sorted(_class_archives(root / TRAIN, None))
    union(name, {"classes": classes, **({"train": wnids} if "train" in chosen else {})})
    labels: dict[str, npt.NDArray[np.int64]] = {}
    for split in chosen:
        if split == "train":
            numbers = {wnid: number for number, wnid in enumerate(classes)}
            labels[split] = np.repeat([numbers[wnid] for wnid in wnids], counts).astype(np.int64)
        else:
            names = [images[split].name(row) for row in range(len(images[split]))]
            listed = Listed.read(val_labels) if val_labels else Listed(str(path), None, devkit.validation)  # type: ignore[union-attr]
            labels[split] = listed.labels(VAL, names, classes)
    source = stored_source(name, classes, {split: images[split] for split in chosen}, labels, hidden_allowed=False)
    return dataclasses.replace(
        named_classes(source, devkit.words if devkit else {}), others={split: others[split] for split in chosen}
    )


def _check_count(root: Path, images: int, devkit: Devkit | None) -> None:
    if devkit is not None and len(devkit.validation) != images:
        raise UsageError(
            f"{VAL} in {root} has {images:,} images, but the devkit has labels for {len(devkit.validation):,}: "
            "download them again, or give --val-labels FILE with a label for each"
        )


def _nested(path: Path, devkit: Devkit | None) -> tuple[MemberImages, tuple[PassedOver, ...], list[str], list[int]]:
    """The training images, what is passed over, and of each class its WNID and its number of images."""
    classes = _class_archives(path, devkit)
    table, others, counts, said = TableOfMembers([path]), list[PassedOver](), list[int](), list[str]()
    with path.open("rb") as file, progress_bar(unit="images") as bar:
        for number, (wnid, inner) in enumerate(classes.items(), 1):
            where = f"{path}: {wnid}.tar"
            before, notes = len(table), list[str]()
            members = scan(file, where, inner.offset, inner.offset + inner.size, notes)
            others += _add(table, members, f"{wnid}/", where)
            said += [f"{where}: {note}" for note in notes]
            counts.append(len(table) - before)
            bar.set_description(f"reading headers, class {number:,} of {len(classes):,}", refresh=False)
            bar.update(counts[-1])
    say(said)
    return table.images(), tuple(others), list(classes), counts


def _class_archives(path: Path, devkit: Devkit | None) -> dict[str, Member]:
    """The archives inside the training archive, by WNID and in its order: a thousand headers."""
    if not path.is_file():
        raise UsageError(f"the classes are not known: put {DEVKIT}.tar.gz into {path.parent}")
    inner: dict[str, Member] = {}
    notes: list[str] = []
    with path.open("rb") as file:
        for member in scan(file, _with_length(path), notes=notes):
            name = member.name.removeprefix("./")
            wnid = name.removesuffix(".tar")
            if not (name.endswith(".tar") and WNID.fullmatch(wnid) and not member.kind):
                raise UsageError(f"{path} holds {name}: {TRAIN} holds nothing but <wnid>.tar, such as n01440764.tar")
            if devkit and wnid not in devkit.words:
                raise UsageError(f"{path} holds {name}, whose WNID is none of the {len(devkit.words):,} in the devkit")
            if wnid in inner:
                raise ShardfeedError(f"{path} holds {name} twice: copy or download it again")
            inner[wnid] = member
    say([f"{path}: {note}" for note in notes])
    return dict(sorted(inner.items()))


def _flat(path: Path) -> tuple[MemberImages, tuple[PassedOver, ...]]:
    table, notes = TableOfMembers([path]), list[str]()
    with path.open("rb") as file:
        others = _add(table, scan(file, where := _with_length(path), notes=notes), "", where)
    say([f"{path}: {note}" for note in notes])
    return table.images(), tuple(others)


def _add(table: TableOfMembers, members: Iterable[Member], folder: str, where: str) -> list[PassedOver]:
    """Adds the files of one archive in the order of their names; returns what is passed over."""
    ordered = sorted(members, key=lambda member: member.name)
    others, before = [], ""
    for member in ordered:
        name = folder + member.name.removeprefix("./")
        if member.kind:
            others.append(PassedOver(name, "passed over: no regular file"))
            continue
        if member.name == before:
            raise ShardfeedError(f"{where} holds {name} twice")
        table.add(name, 0, member)
        before = member.name
    return others


def _with_length(path: Path) -> str:
    """The archive for messages; where its length is not the published one, both."""
    length, published = path.stat().st_size, PUBLISHED[path.name]
    return str(path) if length == published else f"{path} (the published one has {published:,} bytes)"
