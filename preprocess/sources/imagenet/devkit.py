"""The devkit of ILSVRC2012: the names of its classes, and the classes of the validation images.

The devkit numbers classes from 1 in an order of its own. A label here is the class's place among the sorted WNIDs, as
in torchvision, timm and the hub's data set. The only way from one to the other is its table, meta.mat.
"""

import re
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from preprocess.sources.imagenet.matlab import read_structs
from shards.common.errors import ShardfeedError

DEVKIT = "ILSVRC2012_devkit_t12"
META = "data/meta.mat"
GROUND_TRUTH = "data/ILSVRC2012_validation_ground_truth.txt"
WNID = re.compile(r"n\d{8}")
MAX_BYTES = 64 << 20  # of either file: they have 2 MB at most


@dataclass(frozen=True)
class Devkit:
    """`words`: the names of each class, by WNID; `validation`: the WNID of each validation image, in name order."""

    words: dict[str, str]
    validation: tuple[str, ...]


def find_devkit(root: Path) -> Path | None:
    """The devkit in a directory, as an archive or unpacked; None where there is none."""
    for path in (root / f"{DEVKIT}.tar.gz", root / DEVKIT):
        if path.exists():
            return path
    return None


def read_devkit(path: Path) -> Devkit:
    """Reads a devkit. Raises ShardfeedError, which names the file, where it is not whole or not what it should be."""
    try:
        meta, truth = _files(path)
        synsets = read_structs(meta, "synsets")
        classes = {int(_field(each, "ILSVRC2012_ID", float)): each for each in synsets if each["num_children"] == 0}
        wnids = {number: _field(each, "WNID", str) for number, each in classes.items()}
        if wrong := [wnid for wnid in wnids.values() if not WNID.fullmatch(wnid)]:
            raise ValueError(f"{META} names a class {wrong[0]!r}")
        if not wnids or len(set(wnids.values())) < len([each for each in synsets if each["num_children"] == 0]):
            raise ValueError(f"{META} has no classes, or one twice")
        numbers = [int(line) for line in truth.split()]
        if unknown := [number for number in numbers if number not in wnids]:
            raise ValueError(f"{GROUND_TRUTH} holds {unknown[0]}, which is no class of {META}")
    except (ValueError, KeyError, OSError, EOFError, tarfile.TarError, zlib.error) as error:
        reason = f"{path.name} lacks {error}" if isinstance(error, KeyError) else str(error)
        raise ShardfeedError(f"{path} cannot be read as the devkit ({reason}): download it again") from None
    words = {wnids[number]: _field(each, "words", str) for number, each in classes.items()}
    return Devkit(words, tuple(wnids[number] for number in numbers))


def _files(path: Path) -> tuple[bytes, bytes]:
    """The content of meta.mat and of the ground truth."""
    names = (META, GROUND_TRUTH)
    if path.is_dir():
        return tuple((path / name).read_bytes() for name in names)  # type: ignore[return-value]
    found: dict[str, bytes] = {}
    with tarfile.open(path, "r:gz") as archive:
        for member in archive:
            for name in names:
                if member.isreg() and member.name.removeprefix("./") == f"{DEVKIT}/{name}" and member.size <= MAX_BYTES:
                    file = archive.extractfile(member)
                    assert file is not None
                    found[name] = file.read()
    return found[META], found[GROUND_TRUTH]


def _field(struct: dict[str, Any], name: str, kind: type) -> Any:
    if not isinstance(struct.get(name), kind):
        raise ValueError(f"{META} has a class without {name}")
    return struct[name]
