"""Image folders: SOURCE/<split>/<class>/*.jpg, or deeper below a class; the classes in alphabetical order.

SOURCE/<class>/*.jpg is one split, `train`.
"""

import dataclasses
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from preprocess.sources.labels import union
from preprocess.sources.source import (
    HIDDEN_LABEL,
    PassedOver,
    StoredSource,
    choose,
    named_classes,
    printable,
    stored_source,
)
from shards.common.errors import UsageError
from shards.common.terminal import counted, some
from shards.dataset import TRAINING, VALIDATION
from shards.format.layout import MANIFEST

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import datasets

    from preprocess.sources.listed import Listed

# Files that operating systems leave beside images, like all whose names begin with a dot.
SYSTEM_FILES = frozenset({"thumbs.db", "desktop.ini"})
# How files end that people keep beside images. They are passed over, unless their bytes are an image's.
NOTES = (".txt", ".csv", ".tsv", ".json", ".xml", ".yaml", ".yml", ".md", ".html", ".log", ".mat")
# Files of a split that are looked at, to tell an image folder from one of other things.
LOOKED_AT = 100
PASSED_OVER = "passed over: "  # how the reasons of files that are no rows begin
SHOWN = 3  # of them in a message
# The first bytes of the formats in preprocess/images/convert.py; WebP and AVIF have theirs behind a length.
STARTS = (
    *(b"\xff\xd8", b"\x89PNG", b"GIF8", b"BM", b"II*\0", b"MM\0*"),
    *(b"\0\0\0\x0cjP", b"\xff\x4f\xff\x51", b"P4", b"P5", b"P6"),
)
NO_LAYOUT = (
    "{} is a directory, but holds neither parquet files (data/train-*.parquet), nor a data set saved with "
    "save_to_disk, nor images in folders <split>/<class>/*.jpg: it holds {}"
)


@dataclass(frozen=True)
class Layout:
    """How a folder differs from <split>/<class>/*.jpg (preprocess/sources/imagenet/layouts.py finds these).

    `root`: the directory that holds the splits. `labels`: where the classes of a split's images are listed, whose
    files then lie in no class folder; `words`: the names of the classes; `classes`: all classes, None for those that
    have a folder. `inner`: the folder of each class, and of a split with a list, outside of which no file is an image.
    """

    root: Path
    labels: "Mapping[str, Listed]" = field(default_factory=dict)
    words: "Mapping[str, str]" = field(default_factory=dict)
    classes: tuple[str, ...] | None = None
    inner: str = ""


@dataclass(frozen=True, eq=False)
class FolderImages:
    """The image files of one split. Their names are one string and an array of ends, which pickle small and fast."""

    root: Path
    names: bytes
    ends: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ends)

    def path(self, row: int) -> str:
        """The path of a file relative to the root: "<split>/<class>/<file>"."""
        start = self.ends[row - 1] if row else 0
        return os.fsdecode(self.names[start : self.ends[row]])

    def name(self, row: int) -> str:
        return printable(self.path(row))

    def lengths(self) -> npt.NDArray[np.int64]:
        return self.sizes

    def read(self, row: int) -> tuple[bytes, str]:
        path = self.path(row)
        return (self.root / path).read_bytes(), printable(path)

    def table(self) -> "datasets.Dataset":
        import datasets

        paths = [str(self.root / self.path(row)) for row in range(len(self))]
        return datasets.Dataset.from_dict({"image": paths}).cast_column("image", datasets.Image())


def open_folder(name: str, layout: Layout, splits: "Sequence[str] | None") -> StoredSource:
    """Scans an image folder.

    Splits with neither class directories nor a list have no labels, and are left out unless `splits` names them. A
    class that some splits lack is a class all the same. Raises UsageError for other layouts.
    """
    root = layout.root
    there = [entry.name for entry in _directories(root)]
    places = {split: split for split in there}
    if _is_one_split(layout, there):
        there, places = [TRAINING], {TRAINING: ""}
    chosen = there if splits is None else choose(name, there, splits)
    classes = {
        split: [] if split in layout.labels else class_folders(root / places[split], layout.inner) for split in chosen
    }
    labelled = {split: names for split, names in classes.items() if names}
    if layout.classes is not None:
        _check_classes(root, labelled, layout.classes)
        labelled = {"the list of classes": list(layout.classes), **labelled}
    elif not labelled and layout.labels and TRAINING in there:
        labelled = {TRAINING: class_folders(root / TRAINING)}
    class_names = sorted(union(name, labelled))
    images: dict[str, FolderImages] = {}
    labels: dict[str, npt.NDArray[np.int64]] = {}
    others: dict[str, tuple[PassedOver, ...]] = {}
    for split in chosen:
        images[split], labels[split], others[split] = _scan(layout, places[split], classes[split], class_names)
        if split in layout.labels:
            names = [images[split].name(row) for row in range(len(images[split]))]
            labels[split] = layout.labels[split].labels(f"split {split} of {name}", names, class_names)
    if not labelled or not any(map(_holds_images, images.values())):
        raise UsageError(NO_LAYOUT.format(name, _found(root)))
    there_are = {*np.concatenate([*labels.values()]).tolist()}
    if empty := [printable(each) for number, each in enumerate(class_names) if number not in there_are]:
        words = f"{counted(len(empty), 'class has', 'classes have')} no image in {', '.join(chosen)}"
        print(
            f"{name}: {words}, and {'is a class' if len(empty) == 1 else 'are classes'} all the same: {some(empty)}",
            file=sys.stderr,
        )
    source = stored_source(name, [*map(printable, class_names)], images, labels, hidden_allowed=splits is None)
    for split in source.splits:
        if others[split]:
            print(f"{root / places[split]}: {_passing_over(others[split])}", file=sys.stderr)
    return dataclasses.replace(named_classes(source, layout.words), others=others)


def _is_one_split(layout: Layout, there: "Sequence[str]") -> bool:
    """Whether the directories are classes and not splits, as those of ImageNet-V2, -A and -R are.

    None of them is called as a split is, and each holds files alone.
    """
    if layout.labels or layout.classes is not None or {TRAINING, *VALIDATION} & {*there}:
        return False
    return bool(there) and not holds_classes(layout.root)


def holds_classes(root: Path) -> bool:
    """Whether some directory of `root` has directories, as the splits of an image folder have.

    The index of tars of others has some too, and is no split.
    """
    splits = [Path(entry.path) for entry in _directories(root)]
    return any(class_folders(split) for split in splits if not (split / MANIFEST).exists())


def class_folders(split: Path, inner: str = "") -> list[str]:
    """The names of the class directories of a split, in order. `inner`: see Layout."""
    return [entry.name for entry in _directories(split) if entry.name != inner]


def _check_classes(root: Path, there: "Mapping[str, Sequence[str]]", classes: "Sequence[str]") -> None:
    for split, names in there.items():
        if unknown := sorted({*names} - {*classes}):
            raise UsageError(
                f"{root / split} has {counted(len(unknown), 'folder')} that is no class of the list beside it, such as "
                f"{printable(unknown[0])}"
            )


def _scan(
    layout: Layout, place: str, classes: "Sequence[str]", class_names: "Sequence[str]"
) -> tuple[FolderImages, npt.NDArray[np.int64], tuple[PassedOver, ...]]:
    """All files of the split in the directory `place` of the root.

    Whether a file is an image, its bytes tell when it is converted.
    """
    root = layout.root
    names: list[bytes] = []
    sizes: list[int] = []
    labels: list[int] = []
    others: list[PassedOver] = []
    numbers = {each: number for number, each in enumerate(class_names)}
    above = f"{place}/" if place else ""
    if classes:
        with os.scandir(root / place) as entries:
            beside = sorted(entry.name for entry in entries if entry.name not in classes)
        others += [PassedOver(printable(f"{above}{name}"), f"{PASSED_OVER}it lies in no class") for name in beside]
    folders = [(f"{above}{each}", numbers[each]) for each in classes] or [(place, HIDDEN_LABEL)]
    for folder, label in folders:
        inner = f"{folder}/{layout.inner}/" if layout.inner else ""
        for file, entry in _files(root, folder):
            if reason := _no_image(entry) or ("" if file.startswith(inner) else f"it lies beside {layout.inner}/"):
                others.append(PassedOver(printable(file), f"{PASSED_OVER}{reason}"))
                continue
            names.append(os.fsencode(file))
            sizes.append(entry.stat().st_size)
            labels.append(label)
    ends = np.cumsum([0, *map(len, names)])[1:]
    images = FolderImages(root, b"".join(names), ends, np.array(sizes, np.int64))
    return images, np.array(labels, np.int64), tuple(others)


def _passing_over(files: "Sequence[PassedOver]") -> str:
    shown = [f"{file.path} ({file.reason.removeprefix(PASSED_OVER)})" for file in files]
    return f"passing over {counted(len(files), 'file')}: {some(shown, SHOWN)}"


def _no_image(entry: os.DirEntry[str]) -> str | None:
    """Why an entry below a class is passed over; None for a file to convert."""
    if entry.name.startswith(".") or entry.name.lower() in SYSTEM_FILES:
        return "a hidden or system file"
    if not entry.is_file():
        return "no regular file"
    return "no image" if entry.name.lower().endswith(NOTES) and not _is_image(entry.path) else None


def _files(root: Path, folder: str) -> "Iterator[tuple[str, os.DirEntry[str]]]":
    """All files and hidden folders below a folder, with their path from the root: its own first, in order."""
    with os.scandir(root / folder) as entries:
        ordered = sorted(entries, key=lambda entry: entry.name)
    # Links to folders are not followed: they may form a loop.
    folders = [e for e in ordered if e.is_dir(follow_symlinks=False) and not e.name.startswith(".")]
    for entry in ordered:
        if not entry.is_dir(follow_symlinks=False) or entry.name.startswith("."):
            yield f"{folder}/{entry.name}", entry
    for entry in folders:
        yield from _files(root, f"{folder}/{entry.name}")


def _directories(root: Path) -> list[os.DirEntry[str]]:
    with os.scandir(root) as entries:
        return sorted((e for e in entries if e.is_dir() and not e.name.startswith(".")), key=lambda entry: entry.name)


def _holds_images(images: FolderImages) -> bool:
    return any(_is_image(images.root / images.path(row)) for row in range(min(len(images), LOOKED_AT)))


def _is_image(path: str | Path) -> bool:
    """Whether a file begins as an image does."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - of a million entries none becomes a Path
            start = file.read(12)
    except OSError:
        return False
    return start.startswith(STARTS) or start[8:] == b"WEBP" or start[4:8] == b"ftyp"


def _found(root: Path) -> str:
    """What lies in a directory that is no image folder, in words."""
    names = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in root.iterdir())
    return some(names, 5) or "nothing"
