"""Folders of ImageNet and Tiny-ImageNet that differ from <split>/<class>/*.jpg, told by the files that lie in them.

LOC_val_solution.csv      Kaggle: ILSVRC/Data/CLS-LOC/{train/<wnid>, val/*.JPEG}; names in LOC_synset_mapping.txt
meta.bin                  torchvision's ImageNet: {train,val}/<wnid>; names, and the classes of a flat val, in it
val/val_annotations.txt   Tiny-ImageNet: train/<wnid>/images, val/images; wnids.txt and words.txt
"""

import pickle
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Never

from preprocess.sources.folder import Layout, class_folders
from preprocess.sources.listed import Listed
from shards.common.errors import ShardfeedError, UsageError
from shards.dataset import VALIDATION

SOLUTION, MAPPING = "LOC_val_solution.csv", "LOC_synset_mapping.txt"
CLS_LOC = "ILSVRC/Data/CLS-LOC"
META = "meta.bin"
ANNOTATIONS, WNIDS, WORDS = "val/val_annotations.txt", "wnids.txt", "words.txt"
MAX_BYTES = 64 << 20  # of a list of names: the longest known has 3 MB


def find_layout(name: str, root: Path, val_labels: Path | None) -> Layout:
    """The layout of a folder. `val_labels`: a list of the classes of its images to validate on, None without one.

    Raises UsageError for a list that fits no split, ShardfeedError where a file of the layout cannot be read.
    """
    layout = _kaggle(root) or _tiny(root) or _torchvision(root) or Layout(root)
    if val_labels is None:
        return layout
    flat = [split for split in VALIDATION if (layout.root / split).is_dir() and not class_folders(layout.root / split)]
    if not flat:
        raise UsageError(f"--val-labels is for images that lie in no class folder: {name} has no such val")
    return Layout(layout.root, {flat[0]: Listed.read(val_labels)}, layout.words, layout.classes, layout.inner)


def _kaggle(root: Path) -> Layout | None:
    images = root / CLS_LOC if (root / CLS_LOC).is_dir() else root
    # The two lists lie beside ILSVRC, three folders above the images.
    beside = root if images != root else next((up for up in root.parents[:3] if (up / SOLUTION).is_file()), root)
    if not (images / "train").is_dir() or (images == root and not (beside / SOLUTION).is_file()):
        return None
    solution = beside / SOLUTION
    flat = (images / "val").is_dir() and not class_folders(images / "val")
    labels = {"val": Listed.read(solution)} if flat and solution.is_file() else {}
    words = _words(beside / MAPPING, " ") if (beside / MAPPING).is_file() else {}
    return Layout(images, labels, words, tuple(sorted(words)) or None)


def _tiny(root: Path) -> Layout | None:
    if not (root / ANNOTATIONS).is_file() or not (root / WNIDS).is_file():
        return None
    words = _words(root / WORDS, "\t") if (root / WORDS).is_file() else {}
    labels = {"val": Listed.read(root / ANNOTATIONS)}
    return Layout(root, labels, words, tuple(sorted(_text(root / WNIDS).split())), inner="images")


def _torchvision(root: Path) -> Layout | None:
    if not (root / META).is_file():
        return None
    names, validation = _read_meta(root / META)
    flat = (root / "val").is_dir() and not class_folders(root / "val")
    # Classes are those that have a folder, as in torchvision's own reader.
    return Layout(root, {"val": Listed(str(root / META), None, tuple(validation))} if flat else {}, names)


def _read_meta(path: Path) -> tuple[dict[str, str], Sequence[str]]:
    """The names of each class and the WNID of each validation image, as torchvision has saved them by `torch.save`.

    That is a pickle of plain containers in a zip, read here without torch, which takes seconds and half a gigabyte to
    import. Nothing but containers, text and numbers is allowed in it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            (name,) = (each for each in archive.namelist() if each.endswith("/data.pkl"))
            if archive.getinfo(name).file_size > MAX_BYTES:
                raise ValueError("its pickle is too long")
            with archive.open(name) as file:
                names, validation = _PlainUnpickler(file).load()
        words = {wnid: ", ".join(each) for wnid, each in names.items()}
        if not all(isinstance(each, str) for each in (*words, *validation)):
            raise ValueError("it holds something else than WNIDs and names")
    except Exception as error:  # a damaged pickle may raise anything
        reason = " ".join(str(error).split())
        raise ShardfeedError(
            f"{path} cannot be read as what torchvision saves ({reason}): remove it, and classes are called as their "
            "folders"
        ) from None
    return words, validation


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Never:
        raise pickle.UnpicklingError(f"it holds {module}.{name}, not plain data")

    def persistent_load(self, pid: Any) -> Never:
        raise pickle.UnpicklingError("it holds tensors, not plain data")


def _words(path: Path, separator: str) -> dict[str, str]:
    """The names of the classes, from lines of a WNID, a separator and names."""
    pairs = (line.split(separator, 1) for line in _text(path).splitlines())
    return {pair[0].strip(): pair[1].strip() for pair in pairs if len(pair) == 2}


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError("it is too long")
        return path.read_text("utf-8-sig")
    except (OSError, ValueError) as error:
        raise ShardfeedError(f"{path} cannot be read as a list of classes: {error}") from None
