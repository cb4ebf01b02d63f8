"""ImageNet in miniature, as people have it: archives with a devkit, Kaggle's folders, torchvision's, tars."""

import io
import json
import struct
import tarfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from preprocess.sources.imagenet.archives import TRAIN, VAL
from preprocess.sources.imagenet.devkit import DEVKIT, GROUND_TRUTH, META
from tests.conftest import jpeg, photo
from tests.helpers.jobs import write_files

# In the order of their WNIDs. The devkit numbers them otherwise, and has a synset that is no class.
WORDS = {"n01440764": "tench, Tinca tinca", "n02119789": "kit fox", "n03000684": "chain saw, chainsaw"}
WNIDS = tuple(WORDS)
IDS = {1: "n02119789", 2: "n03000684", 3: "n01440764"}
TRAIN_IMAGES = {
    f"{wnid}_{number}.JPEG": jpeg(photo(20, 24, seed=10 * place + number))
    for place, wnid in enumerate(WNIDS)
    for number in range(place + 2)
}
# The devkit's number of each validation image, in the order of their names.
TRUTH = (2, 3, 3, 1)
VAL_IMAGES = {f"ILSVRC2012_val_{n:08d}.JPEG": jpeg(photo(20, 24, seed=100 + n)) for n in range(1, len(TRUTH) + 1)}
VAL_WNIDS = [IDS[number] for number in TRUTH]


def tar(files: Mapping[str, bytes], **options: Any) -> bytes:
    """An archive with these files, in this order."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", **options) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def train_files(wnid: str) -> dict[str, bytes]:
    """The training images of a class, by name."""
    return {name: data for name, data in TRAIN_IMAGES.items() if name.startswith(wnid)}


def archives(root: Path) -> Path:
    """The two archives, whose members are in no order, and the devkit."""
    inner = {f"{wnid}.tar": tar(dict(reversed(train_files(wnid).items()))) for wnid in reversed(WNIDS)}
    kit = {f"{DEVKIT}/{name}": data for name, data in devkit().items()}
    write_files(root, {TRAIN: tar(inner), VAL: tar(dict(reversed(VAL_IMAGES.items())))})
    with (
        tarfile.open(root / f"{DEVKIT}.tar.gz", "w:gz") as archive,
        tarfile.open(fileobj=io.BytesIO(tar(kit))) as plain,
    ):
        for member in plain:
            archive.addfile(member, plain.extractfile(member))
    return root


def devkit(truth: Sequence[int] = TRUTH) -> dict[str, bytes]:
    """The two files of the devkit that matter, by name."""
    rows: list[tuple[int, str, str, int]] = [(number, wnid, WORDS[wnid], 0) for number, wnid in IDS.items()]
    return {
        META: matlab([*rows, (4, "n00001740", "entity", 3)]),
        GROUND_TRUTH: "".join(f"{i}\n" for i in truth).encode(),
    }


def kaggle(root: Path) -> Path:
    """Kaggle's folders and lists; the list of validation images is in no order."""
    images = "ILSVRC/Data/CLS-LOC"
    solution = [
        f"{name[:-5]},{wnid} 1 2 30 40 {wnid} 1 1 5 5 " for name, wnid in zip(VAL_IMAGES, VAL_WNIDS, strict=True)
    ]
    return write_files(
        root,
        {
            **{f"{images}/train/{name[:9]}/{name}": data for name, data in TRAIN_IMAGES.items()},
            **{f"{images}/val/{name}": data for name, data in VAL_IMAGES.items()},
            f"{images}/test/ILSVRC2012_test_00000001.JPEG": VAL_IMAGES["ILSVRC2012_val_00000001.JPEG"],
            "LOC_val_solution.csv": "\n".join(["ImageId,PredictionString", *reversed(solution)]).encode(),
            "LOC_synset_mapping.txt": "".join(f"{wnid} {words}\n" for wnid, words in WORDS.items()).encode(),
        },
    )


def torchvision_root(root: Path) -> Path:
    """What torchvision's ImageNet unpacks the archives to."""
    val = zip(VAL_IMAGES.items(), VAL_WNIDS, strict=True)
    write_files(
        root,
        {
            **{f"train/{name[:9]}/{name}": data for name, data in TRAIN_IMAGES.items()},
            **{f"val/{wnid}/{name}": data for (name, data), wnid in val},
        },
    )
    torch.save(({wnid: tuple(words.split(", ")) for wnid, words in WORDS.items()}, VAL_WNIDS), root / "meta.bin")
    return root


def tiny(root: Path) -> Path:
    """Tiny-ImageNet, whose list of WNIDs is in no order."""
    val = dict(zip(VAL_IMAGES.values(), VAL_WNIDS, strict=True))
    return write_files(
        root,
        {
            **{f"train/{name[:9]}/images/{name}": data for name, data in TRAIN_IMAGES.items()},
            **{f"train/{wnid}/{wnid}_boxes.txt": b"n_0.JPEG\t0\t0\t1\t1\n" for wnid in WNIDS},
            **{f"val/images/val_{number}.JPEG": data for number, data in enumerate(val)},
            "val/val_annotations.txt": "".join(
                f"val_{number}.JPEG\t{wnid}\t0\t32\t44\t62\n" for number, wnid in enumerate(val.values())
            ).encode(),
            "test/images/test_0.JPEG": next(iter(val)),
            "wnids.txt": "\n".join(reversed(WNIDS)).encode(),
            "words.txt": "".join(
                f"{wnid}\t{words}\n" for wnid, words in {"n00001740": "entity", **WORDS}.items()
            ).encode(),
        },
    )


def webdataset_tars(root: Path) -> Path:
    """Tars as timm's on the hub: two of training and one of validation, with `_info.json`."""
    train = [(name[:-5], data, WNIDS.index(name[:9])) for name, data in TRAIN_IMAGES.items()]
    val = [(name[:-5], VAL_IMAGES[name], WNIDS.index(w)) for name, w in zip(VAL_IMAGES, VAL_WNIDS, strict=True)]
    tars = {"m-train-0000.tar": train[:5], "m-train-0001.tar": train[5:], "m-validation-00.tar": val}
    lengths = {name: len(samples) for name, samples in tars.items()}
    splits = {
        split: {"filenames": names, "shard_lengths": [lengths[name] for name in names]}
        for split, names in {"train": list(tars)[:2], "validation": list(tars)[2:]}.items()
    }
    files = {name: tar({k: v for each in samples for k, v in sample(*each).items()}) for name, samples in tars.items()}
    return write_files(root, {**files, "_info.json": json.dumps({"name": "m", "splits": splits}).encode()})


def sample(key: str, image: bytes, label: int) -> dict[str, bytes]:
    """The files of one sample of timm's tars."""
    about = json.dumps({"filename": f"{key}.JPEG", "label": label, "number": label + 100}).encode()
    return {f"{key}.cls": str(label).encode(), f"{key}.jpg": image, f"{key}.json": about}


def matlab(rows: Sequence[tuple[int, str, str, int]]) -> bytes:
    """A MATLAB file with the array `synsets`, as the devkit's: id, WNID, words, number of children."""
    fields = ("ILSVRC2012_ID", "WNID", "words", "num_children", "children")
    names = b"".join(name.encode().ljust(32, b"\0") for name in fields)
    values = [
        _array(6, 1, struct.pack("<d", value), 9)
        if isinstance(value, int)
        else _array(4, len(value), value.encode(), 16)
        for row in rows
        for value in row
    ]
    children = [_element(14, b"")] * len(rows)
    cells = b"".join(b"".join([*values[4 * i : 4 * i + 4], children[i]]) for i in range(len(rows)))
    body = _head(2, len(rows), "synsets") + _element(5, struct.pack("<i", 32)) + _element(1, names) + cells
    packed = zlib.compress(_element(14, body))
    return b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + struct.pack("<II", 15, len(packed)) + packed


def _array(array_class: int, length: int, data: bytes, kind: int) -> bytes:
    return _element(14, _head(array_class, length, "") + _element(kind, data))


def _head(array_class: int, length: int, name: str) -> bytes:
    shape = struct.pack("<ii", length, 1) if array_class == 2 else struct.pack("<ii", 1, length)
    return _element(6, struct.pack("<II", array_class, 0)) + _element(5, shape) + _element(1, name.encode())


def _element(kind: int, data: bytes) -> bytes:
    if 0 < len(data) <= 4:
        return struct.pack("<HH", kind, len(data)) + data.ljust(4, b"\0")
    return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)
