"""Classes of images from a text file, for folders and archives whose images lie side by side: --val-labels and others.

A line of the file is one of these, all lines alike:

    n01440764                          the class of one image, in the order of the images' names
    ILSVRC2012_val_00000001.JPEG 65    a file's name, with or without its ending, and its class
    ILSVRC2012_val_00000001,n01440764  the same with commas or tabs; what follows the class is passed over

A class is the name of a class (a WNID), or its number, counted from 0 among the sorted names.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from preprocess.sources.source import printable
from shards.common.errors import UsageError
from shards.common.terminal import counted

MAX_BYTES = 1 << 30
# A file's name, which ends at the first comma or tab, else at the first blank; and the first word after it.
_NAMED = re.compile(r"([^,\t]+?)\s*[,\t]\s*\"?([^\s,\"]+).*|(\S+)\s+(\S+).*")


@dataclass(frozen=True)
class Listed:
    """The classes in a file. `names`: of the images, None where the file goes by their order; `where`: the file."""

    where: str
    names: tuple[str, ...] | None
    classes: tuple[str, ...]

    @classmethod
    def read(cls, path: Path) -> "Listed":
        """Reads a file of classes. Raises UsageError where there is none, or it has none of the forms above."""
        try:
            if path.stat().st_size > MAX_BYTES:
                raise ValueError("it is too long")
            lines = path.read_text("utf-8-sig").splitlines()
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no text"
            raise UsageError(f"{path} cannot be read as a list of labels: {reason}") from None
        while lines and not lines[-1].strip():
            del lines[-1]
        if not lines:
            raise UsageError(f"{path} is empty: it must hold a label a line")
        found = [_NAMED.fullmatch(line.strip()) for line in lines]
        if not any(found):
            if "" in (stripped := [line.strip() for line in lines]):
                raise UsageError(f"{path}: line {stripped.index('') + 1} is empty")
            return cls(str(path), None, tuple(stripped))
        names, classes = [], []
        for number, (match, line) in enumerate(zip(found, lines, strict=True), 1):
            if match is None:
                raise UsageError(f"{path}: line {number} ({line[:40]!r}) is no pair of a file's name and a label")
            names.append(PurePosixPath((match[1] or match[3]).strip('"')).name)
            classes.append(match[2] or match[4])
        return cls(str(path), tuple(names), tuple(classes))

    def labels(self, what: str, files: Sequence[str], class_names: Sequence[str]) -> npt.NDArray[np.int64]:
        """The class numbers of the images `files`, (n,). `what`: their split, for messages.

        Raises UsageError for an image without a class, another number of lines, and a class that is not among
        `class_names`.
        """
        if self.names is None:
            if len(self.classes) != len(files):
                raise UsageError(
                    f"{self.where} has {counted(len(self.classes), 'label')}, but {what} has "
                    f"{counted(len(files), 'image')}: it must have a line for each"
                )
            return self._numbers(self.classes, class_names)
        known = self._by_name(files)
        short = [PurePosixPath(file).name for file in files]
        keys = [file if file in known else PurePosixPath(file).stem for file in short]
        if missing := [file for file, key in zip(short, keys, strict=True) if key not in known]:
            raise UsageError(
                f"{self.where} has no label for {len(missing):,} of {counted(len(files), 'image')} in {what}, such as "
                f"{printable(missing[0])}"
            )
        if len(known) > len(files):
            print(f"{self.where} names {len(known) - len(files):,} images that are not in {what}", file=sys.stderr)
        return self._numbers([known[key] for key in keys], class_names)

    def _by_name(self, files: Sequence[str]) -> Mapping[str, str]:
        assert self.names is not None
        pairs = list(zip(self.names, self.classes, strict=True))
        there = {PurePosixPath(file).name for file in files} | {PurePosixPath(file).stem for file in files}
        # A header names no image, and its class is no number.
        if self.names[0] not in there and not self.classes[0].isdigit() and len(pairs) > 1 and "." not in pairs[0][0]:
            del pairs[0]
        known: dict[str, str] = {}
        for name, each in pairs:
            if known.setdefault(name, each) != each:
                raise UsageError(f"{self.where} gives {name} two labels: {known[name]} and {each}")
        return known

    def _numbers(self, classes: Sequence[str], class_names: Sequence[str]) -> npt.NDArray[np.int64]:
        numbers = {name: number for number, name in enumerate(class_names)}
        distinct = dict.fromkeys(classes)
        if unknown := [each for each in distinct if each not in numbers]:
            plain = all(re.fullmatch(r"[0-9]{1,9}", each) for each in distinct)
            if plain and max(map(int, distinct)) == len(class_names) and "0" not in distinct:
                raise UsageError(
                    f"{self.where} counts classes from 1, perhaps in another order than the sorted names: labels must "
                    f"be names or 0 to {len(class_names) - 1}. The devkit's ground truth is read from the devkit "
                    "(ILSVRC2012_devkit_t12.tar.gz), in the directory of the archives"
                )
            too_high = [each for each in distinct if plain and int(each) >= len(class_names)]
            if not plain or too_high:
                raise UsageError(
                    f"{self.where} holds the label {(too_high or unknown)[0]!r}, which is none of the "
                    f"{counted(len(class_names), 'class', 'classes')} ({', '.join(class_names[:2])}, ...), nor a "
                    f"number from 0 to {len(class_names) - 1}"
                )
            numbers = {each: int(each) for each in distinct}
        return np.array([numbers[each] for each in classes], np.int64)
