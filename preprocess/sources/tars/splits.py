"""Which tars make which split: those of a directory, or of a pattern such as DIR/imagenet1k-train-{0000..1023}.tar.

timm's `_info.json` says which tars make which split, how many samples each has, and perhaps how json calls the label
(`alt_label`). Without it a split is the word train, validation, val, ... in a tar's name.
"""

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from shards.common.errors import ShardfeedError, UsageError
from shards.dataset import TRAINING, VALIDATION

INFO = "_info.json"
MAX_TARS = 100_000
_BRACES = re.compile(r"{(?:(\d{1,18})\.\.(\d{1,18})|([^{}]*,[^{}]*))}")


@dataclass(frozen=True)
class Tars:
    """The tars of one split, in order. `samples`: how many each holds, where `_info.json` says; `label`: its name."""

    paths: tuple[Path, ...]
    samples: tuple[int, ...] | None = None
    label: str = ""


def is_pattern(name: str) -> bool:
    """Whether a source is a pattern of tars with braces, or one tar."""
    return name.endswith(".tar") and ("{" in name or Path(name).expanduser().is_file())


def pattern_tars(pattern: str) -> dict[str, Tars]:
    """The tars that a pattern names, by split. Raises UsageError where one does not exist."""
    names = list(islice(_expanded(pattern), MAX_TARS + 1))
    if len(names) > MAX_TARS:
        raise UsageError(f"{pattern} are more than {MAX_TARS:,} tars: check the pattern")
    paths = [Path(name).expanduser() for name in names]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise UsageError(f"{len(missing):,} of the {len(paths):,} tars {pattern} do not exist, such as {missing[0]}")
    return _by_name(paths)


def _expanded(pattern: str) -> Iterator[str]:
    """The names that a pattern stands for: {00..12} a range, {a,b} a choice. Lazy, unlike the package braceexpand."""
    match = _BRACES.search(pattern)
    if match is None:
        yield pattern
        return
    first, last, choices = match.groups()
    width = len(first) if first and first.startswith("0") else 0
    parts = (str(n).zfill(width) for n in range(int(first), int(last) + 1)) if first else choices.split(",")
    for part in parts:
        for rest in _expanded(pattern[match.end() :]):
            yield pattern[: match.start()] + part + rest


def directory_tars(root: Path) -> dict[str, Tars]:
    """The tars in a directory, by split; may be none. Raises ShardfeedError for a damaged `_info.json`."""
    paths = sorted(path for path in root.glob("*.tar") if path.is_file() and not path.name.startswith("."))
    return _by_info(root) if paths and (root / INFO).is_file() else _by_name(paths)


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
