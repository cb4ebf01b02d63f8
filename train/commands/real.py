"""ReaL labels: several right classes for each validation image of ImageNet (Beyer et al., arXiv:2006.07159)."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shards.common.errors import UsageError
from shards.common.terminal import counted
from shards.dataset import Split

# The file's 50,000 lists take 0.9 MB.
LONGEST = 1 << 26
_NUMBER = re.compile(r"ILSVRC2012_val_(\d{8})(?!\d)")


def with_real_labels(split: Split, path: Path) -> tuple[Split, npt.NDArray[np.bool_]]:
    """The samples of a split that have ReaL labels, and which classes are right for each, (n, classes).

    path: `real.json`, a list of classes for each validation image, in the order of the images' names. An image is
    known by its name ILSVRC2012_val_NNNNNNNN, as key or in a kept column. Raises UsageError where the file is no such
    list, or does not go with the split.
    """
    lists, classes = _read(path), len(split.class_names)
    numbers = _numbers(split)
    for number in (numbers.min(), numbers.max()):
        if not 1 <= number <= len(lists):
            images = counted(len(lists), "image")
            raise UsageError(f"{path} has the labels of {images}, and {split.place} an image {number}")
    right = np.zeros((len(split), classes), bool)
    for row, number in enumerate(numbers):
        labels = lists[number - 1]
        if labels and max(labels) >= classes:
            raise UsageError(
                f"{path} has a class {max(labels)}, and {split.place} {counted(classes, 'class', 'classes')}"
            )
        right[row, labels] = True
    known = right.any(1)
    if not known.any():
        raise UsageError(f"{path} has no label for an image of {split.place}")
    return split.select(known), right[known]


def _numbers(split: Split) -> npt.NDArray[np.int64]:
    """The number of each image among the validation images of ILSVRC2012, from 1."""
    texts = [name for name, kind in split.manifest.columns.items() if kind == "string"]
    for names in (split.keys(), *map(split.column, texts)):
        found = [_NUMBER.search(name) for name in names]
        if all(found):
            return np.array([int(match[1]) for match in found if match], np.int64)
    raise UsageError(
        f"{split.place} does not say which images of ILSVRC2012 it has: make it with "
        "`python -m preprocess SOURCE OUT --keep path`, or evaluate tars whose keys are ILSVRC2012_val_NNNNNNNN"
    )


def _read(path: Path) -> list[list[int]]:
    if not path.is_file() or path.stat().st_size > LONGEST:
        raise UsageError(f"{path} is not a file of ReaL labels: give real.json")
    try:
        lists: Any = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        lists = None
    if not isinstance(lists, list) or not all(map(_is_list_of_classes, lists)):
        raise UsageError(f"{path} holds no ReaL labels, which are a list of numbers of classes for each image")
    return lists


def _is_list_of_classes(labels: Any) -> bool:
    return isinstance(labels, list) and all(type(label) is int and 0 <= label < 1 << 31 for label in labels)
