"""What names tars of others: a pattern with braces, a tar, a directory of tars, or a URL of any of them.

    imagenet1k-train-{0000..1023}.tar      braces as webdataset (and bash) expands them; `::` joins patterns
    imagenet-1k-wds/                       a directory: by timm's _info.json, or by the names of the tars

Tars are told apart into splits by their names: `imagenet1k-validation-07.tar` is of the split `validation`, and tars in
a subdirectory are of the split of its name.
"""

import hashlib
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import braceexpand

from shards.common.arguments import as_path
from shards.common.errors import ShardfeedError, UsageError
from shards.common.records import Count, read_record
from shards.common.terminal import counted
from shards.format.layout import is_split_name
from shards.remote.object_store import ObjectStore, Stored
from shards.remote.urls import is_url

TAR = ".tar"
INFO = "_info.json"
CLEANED = "-cleaned"  # ends the names of the splits' own shards of cleaned images
# Parts of names that tell splits apart, and the name of the split; all other tars are taken for training.
SPLITS = {
    **{name: name for name in ("train", "validation", "val", "valid", "test", "dev")},
    "training": "train",
    "eval": "validation",
}
# More tars than any data set has: braces may be mistyped.
MOST_TARS = 1_000_000
_PACKED = re.compile(r"\.(tar\.\w+|tgz|tbz2?|txz)$")
_RANGE = re.compile(r"{(-?\d+)\.\.(-?\d+)")
# Requests at once for the lengths of tars on a web server, which has no listings with lengths.
LOOKS = 32


@dataclass(frozen=True)
class Tar:
    """One tar: its name relative to the source's directory, its bytes, and a mark that changes with its content.

    `modified`: the time of its last change in nanoseconds; what the store says (an ETag) behind a URL.
    """

    name: str
    bytes: int
    modified: str


@dataclass(frozen=True)
class SplitHint:
    """What `_info.json` says of a split. Nothing depends on it but names, and what is said where it is wrong."""

    filenames: tuple[str, ...] = ()
    shard_lengths: tuple[Count, ...] | None = None
    num_samples: Count | None = None
    alt_label: str | None = None


@dataclass(frozen=True)
class _Info:
    splits: Mapping[str, SplitHint] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """The tars of `given`, by split. `directory`: the directory or the URL that all lie in, or below."""

    given: str
    directory: str
    splits: Mapping[str, tuple[Tar, ...]]
    hints: Mapping[str, SplitHint] = field(default_factory=dict)

    @property
    def remote(self) -> bool:
        """Whether the tars lie behind a URL."""
        return is_url(self.directory)


def names_tars(place: str | Path) -> bool:
    """Whether `place` names tars, and not a directory or its URL."""
    text = str(place)
    if Path(text).is_dir():
        return False
    return text.endswith(TAR) or "{" in text or "::" in text


def identity(place: str | Path) -> str:
    """The same text for the same source however it is written: absolute, without a slash at its end."""
    text = str(place)
    if is_url(text):
        scheme, _, rest = text.partition("://")
        return f"{scheme.lower()}://{rest.rstrip('/')}"
    return "::".join(os.path.normpath(as_path("the tars", part).absolute()) for part in text.split("::"))


def index_name(place: str | Path) -> str:
    """The name of the directory beside the tars of a pattern that holds their index."""
    name = identity(place).rpartition("/")[2]
    words = re.sub(r"[^A-Za-z0-9_-]", "", re.split(r"[{.]", name)[0]).strip("-_") or "tars"
    return f"{words}-{hashlib.sha256(name.encode()).hexdigest()[:8]}.index"


def expanded(pattern: str) -> list[str]:
    """The names in a pattern, in order. Raises UsageError for unbalanced braces, and for too many names."""
    try:
        if any(abs(int(last) - int(first)) >= MOST_TARS for first, last in _RANGE.findall(pattern)):
            raise UsageError(f"{pattern} names more than {MOST_TARS:,} tars")  # braceexpand would hold all in memory
        parts = [braceexpand.braceexpand(part) for part in pattern.split("::")]
        names = list(islice((name for part in parts for name in part), MOST_TARS + 1))
    except ValueError as error:
        raise UsageError(f"{pattern} cannot be expanded: {error}") from None
    if len(names) > MOST_TARS:
        raise UsageError(f"{pattern} names more than {MOST_TARS:,} tars")
    doubles = len(names) - len(set(names))
    if doubles:
        raise UsageError(f"{pattern} names {counted(doubles, 'tar')} twice")
    return names


def directory_of(place: str | Path) -> str:
    """The directory or the URL in which the tars of a pattern lie, as far as the pattern itself says."""
    return common_directory(expanded(identity(place)))


def open_source(place: str | Path) -> Source:
    """Looks at all tars that `place` names. Raises UsageError where there are none, or some are missing."""
    if names_tars(place):
        names = expanded(identity(place))
        directory = common_directory(names)
        tars = _look(directory, [name[len(directory) + 1 :] for name in names])
        return Source(str(place), directory, _by_split(tars))
    directory = identity(place)
    names = listed(directory)
    if not names:
        packed = [] if is_url(directory) else sorted(filter(_PACKED.search, map(str, Path(directory).iterdir())))
        if packed:
            raise UsageError(
                f"{place} holds compressed tars alone, such as {Path(packed[0]).name}: decompress them to .tar first"
            )
        raise UsageError(f"{place} holds no tars, nor do its subdirectories: give a directory or a pattern of tars")
    hints = _hints(directory)
    if hints:
        named = {split: hint for split, hint in hints.items() if hint.filenames}
        if named:
            chosen = {split: _known(directory, split, hint, names) for split, hint in _there(directory, named, names)}
            found = {tar.name: tar for tar in _look(directory, [name for each in chosen.values() for name in each])}
            splits = {split: tuple(found[name] for name in each) for split, each in chosen.items()}
            return Source(str(place), directory, splits, hints)
    return Source(str(place), directory, _by_split(_look(directory, names)), hints)


def split_of(name: str) -> str:
    """The split that a tar's name (relative to the source) tells."""
    folder, _, file = name.rpartition("/")
    if folder and is_split_name(folder.rpartition("/")[2]):
        file = folder = folder.rpartition("/")[2]
    words = re.split(r"[^A-Za-z]+", file.lower())
    known = [SPLITS[word] for word in words if word in SPLITS]
    return known[-1] if known else folder or "train"


def _by_split(tars: Sequence[Tar]) -> dict[str, tuple[Tar, ...]]:
    splits: dict[str, list[Tar]] = {}
    for tar in tars:
        splits.setdefault(split_of(tar.name), []).append(tar)
    order = {name: number for number, name in enumerate(SPLITS)}
    return {name: tuple(splits[name]) for name in sorted(splits, key=lambda name: (order.get(name, len(order)), name))}


def common_directory(names: Sequence[str]) -> str:
    """The directory that all names lie in or below. Raises UsageError for names in several stores."""
    remote = {is_url(name) for name in names}
    if remote == {False}:
        return os.path.commonpath([Path(name).parent for name in names])
    folders = [name.rpartition("/")[0].split("/") for name in names]
    common = [parts[0] for parts in zip(*folders, strict=False) if len(set(parts)) == 1]
    # The parts may agree again behind the first that differs.
    while any(folder[: len(common)] != common for folder in folders):
        common.pop()
    if len(remote) > 1 or len(common) < 3:
        raise UsageError("the tars of one data set must lie in one store: on this machine, or in one bucket or host")
    return "/".join(common)


def listed(directory: str) -> list[str]:
    """The tars in a directory and its subdirectories, by name, without those that hold cleaned images.

    Raises UsageError for a directory that is none.
    """
    if is_url(directory):
        names = [stored.name for stored in ObjectStore(directory).below()]
    else:
        root = Path(directory)
        if not root.is_dir():
            raise UsageError(f"{directory} is neither a directory nor a pattern of tars")
        inner = [each for each in root.iterdir() if each.is_dir() and os.access(each, os.R_OK)]
        files = [file for each in (root, *inner) for file in each.iterdir()]
        names = [file.relative_to(root).as_posix() for file in files if file.suffix == TAR and file.is_file()]
    tars = [name for name in names if name.endswith(TAR) and name.count("/") <= 1 and not name.startswith(".")]
    return sorted(name for name in tars if not name.rpartition("/")[0].endswith(CLEANED))


def _look(directory: str, names: Sequence[str]) -> list[Tar]:
    """Length and mark of each tar. Raises UsageError where some are missing."""
    found = _look_behind_url(ObjectStore(directory), names) if is_url(directory) else _look_here(directory, names)
    missing = [name for name in names if name not in found]
    if missing:
        some = "there is no" if len(missing) == 1 else f"{len(missing):,} of {len(names):,} tars are missing:"
        raise UsageError(f"{some} {directory}/{missing[0]}{', ...' if len(missing) > 1 else ''}")
    return [found[name] for name in names]


def _look_here(directory: str, names: Sequence[str]) -> dict[str, Tar]:
    found = {}
    for name in names:
        path = Path(directory) / name
        if path.is_file():  # a pipe would be waited for
            status = path.stat()
            found[name] = Tar(name, status.st_size, str(status.st_mtime_ns))
    return found


def _look_behind_url(store: ObjectStore, names: Sequence[str]) -> dict[str, Tar]:
    stored: dict[str, Stored] = {}
    if store.scheme not in ("http", "https") and len(names) > 1:
        stored = {each.name: each for each in store.below()}
    asked = [name for name in names if name not in stored] if not stored else []
    with ThreadPoolExecutor(LOOKS) as threads:
        stored |= {each.name: each for each in threads.map(store.look, asked) if each is not None}
    return {name: Tar(name, stored[name].size, stored[name].version) for name in names if name in stored}


def _hints(directory: str) -> Mapping[str, SplitHint]:
    """What `_info.json` says; nothing where there is none. Raises UsageError for one that cannot be read."""
    try:
        data = ObjectStore(directory).read(INFO) if is_url(directory) else (Path(directory) / INFO).read_bytes()
    except FileNotFoundError:
        return {}
    advice = "mend or remove it: without it the names of tars decide"
    hints = read_record(_Info, data, f"{directory}/{INFO}", advice).splits
    wrong = next((name for name in hints if not is_split_name(name)), None)
    if wrong is not None:
        raise UsageError(f"{directory}/{INFO}: {wrong!r} cannot be the name of a split: remove the file, or mend it")
    return hints


def _there(directory: str, hints: Mapping[str, SplitHint], names: Sequence[str]) -> Iterator[tuple[str, SplitHint]]:
    """The splits without those of which no tar is there, which a line says; all of them where that is so of all."""
    there = set(names)
    none_is_there = not any(name in there for hint in hints.values() for name in hint.filenames)
    for split, hint in hints.items():
        if none_is_there or there.intersection(hint.filenames):
            yield split, hint
        else:
            print(f"{directory}: leaving out split {split}: none of its tars is here", file=sys.stderr)


def _known(directory: str, split: str, hint: SplitHint, names: Sequence[str]) -> tuple[str, ...]:
    """The tars of a split by `_info.json`, each of which must be in the directory."""
    there = set(names)
    unknown = next((name for name in hint.filenames if name not in there), None)
    if unknown is not None:
        raise UsageError(f"{directory}/{INFO} names {unknown!r} in the split {split}, and there is no such tar")
    if len(set(hint.filenames)) < len(hint.filenames):
        raise ShardfeedError(f"{directory}/{INFO} names a tar of the split {split} twice")
    return hint.filenames
