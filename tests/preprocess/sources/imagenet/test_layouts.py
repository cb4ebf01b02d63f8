"""Folders of ImageNet's relatives, in miniature, beside torchvision's readers."""

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from torchvision.datasets import ImageFolder, ImageNet, Imagenette

from preprocess.sources import open_source
from preprocess.sources.imagenet.layouts import META
from preprocess.sources.source import Source
from shards.common.errors import ShardfeedError, UsageError
from tests.helpers import imagenet
from tests.helpers.imagenet import TRAIN_IMAGES, VAL_IMAGES, VAL_WNIDS, WNIDS, WORDS
from tests.helpers.jobs import convert, write_files

NAMED = tuple(f"{wnid}: {words}" for wnid, words in WORDS.items())
VAL_LABELS = {data: WNIDS.index(wnid) for data, wnid in zip(VAL_IMAGES.values(), VAL_WNIDS, strict=True)}


def rows(source: Source, split: str) -> list[tuple[bytes, int]]:
    """Image and label of each row."""
    return [(row.data, row.label) for row in (source.row(split, i) for i in range(source.num_rows(split)))]


def of_torchvision(data_set: ImageFolder) -> list[tuple[bytes, int]]:
    """The same of a data set of torchvision."""
    return [(Path(path).read_bytes(), label) for path, label in data_set.samples]


@pytest.mark.parametrize("make", [imagenet.kaggle, imagenet.torchvision_root, imagenet.tiny])
def test_images_labels_and_names(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    source = open_source(str(make(tmp_path)))
    assert source.splits == ("train", "val")
    assert source.class_names == NAMED
    train = [(data, WNIDS.index(name[:9])) for name, data in TRAIN_IMAGES.items()]
    assert sorted(rows(source, "train")) == sorted(train)
    assert dict(rows(source, "val")) == VAL_LABELS


def test_torchvisions_root_is_as_torchvision_reads_it(tmp_path: Path) -> None:
    source = open_source(str(imagenet.torchvision_root(tmp_path)))
    for split in ("train", "val"):
        reader = ImageNet(str(tmp_path), split)
        assert rows(source, split) == of_torchvision(reader)
        assert source.class_names == tuple(
            f"{w}: {', '.join(n)}" for w, n in zip(reader.wnids, reader.classes, strict=True)
        )


def test_kaggles_training_images_are_as_image_folder_reads_them(tmp_path: Path) -> None:
    source = open_source(str(imagenet.kaggle(tmp_path)))
    assert rows(source, "train") == of_torchvision(ImageFolder(str(tmp_path / "ILSVRC/Data/CLS-LOC/train")))


def test_kaggles_innermost_folder_will_do(tmp_path: Path) -> None:
    whole = open_source(str(imagenet.kaggle(tmp_path)))
    inner = open_source(str(tmp_path / "ILSVRC/Data/CLS-LOC"))
    assert (inner.fingerprint, inner.class_names) == (whole.fingerprint, whole.class_names)


def test_imagenette_is_as_torchvision_reads_it(tmp_path: Path) -> None:
    wnids = ("n01440764", "n02102040", "n03000684")
    files = {
        f"imagenette2-320/{split}/{wnid}/{number}.JPEG": data
        for split in ("train", "val")
        for wnid in wnids
        for number, data in enumerate(list(TRAIN_IMAGES.values())[:2])
    }
    write_files(tmp_path, {**files, "imagenette2-320/noisy_imagenette.csv": b"path,noisy_labels_0\n"})
    source = open_source(str(tmp_path / "imagenette2-320"))
    assert source.class_names == wnids
    for split in ("train", "val"):
        reader = Imagenette(str(tmp_path), split, "320px")
        assert [row[1] for row in rows(source, split)] == [label for _, label in reader._samples]


def test_tiny_imagenets_lists_of_boxes_are_no_rejects(tmp_path: Path) -> None:
    assert convert(imagenet.tiny(tmp_path / "source"), tmp_path / "out", "--max-rejects", "0") == 0


def test_a_flat_val_gets_its_labels_from_meta_bin(tmp_path: Path) -> None:
    root = imagenet.torchvision_root(tmp_path)
    for path in sorted((root / "val").rglob("*.JPEG")):
        path.rename(root / "val" / path.name)
        if not any(path.parent.iterdir()):
            path.parent.rmdir()
    assert dict(rows(open_source(str(root)), "val")) == VAL_LABELS


def test_a_flat_val_gets_its_labels_from_a_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = imagenet.kaggle(tmp_path)
    (root / "LOC_val_solution.csv").rename(root / "list.csv")
    assert open_source(str(root)).splits == ("train",)
    assert "leaving out split val: it has no labels" in capsys.readouterr().err
    source = open_source(str(root), val_labels=root / "list.csv")
    assert dict(rows(source, "val")) == VAL_LABELS
    assert dict(rows(open_source(str(root), ["val"], val_labels=root / "list.csv"), "val")) == VAL_LABELS


def test_a_list_for_a_val_of_class_folders_is_refused(tmp_path: Path) -> None:
    imagenet.torchvision_root(tmp_path)
    with pytest.raises(UsageError, match=r"--val-labels is for images that lie in no class folder: .* has no such val"):
        open_source(str(tmp_path), val_labels=tmp_path / "list.txt")


def test_a_validation_image_without_a_label_is_named(tmp_path: Path) -> None:
    root = imagenet.kaggle(tmp_path)
    write_files(root / "ILSVRC/Data/CLS-LOC/val", {"ILSVRC2012_val_00000009.JPEG": b"x"})
    with pytest.raises(
        UsageError, match=r"no label for 1 of 5 images in split val .*, such as ILSVRC2012_val_00000009"
    ):
        open_source(str(root))


def test_a_folder_that_is_no_class_is_named(tmp_path: Path) -> None:
    root = write_files(imagenet.tiny(tmp_path), {"train/n09999999/images/0.JPEG": b"x"})
    with pytest.raises(
        UsageError, match="train has 1 folder that is no class of the list beside it, such as n09999999"
    ):
        open_source(str(root))


def test_names_of_classes_leave_the_fingerprint_as_it_is(tmp_path: Path) -> None:
    root = imagenet.torchvision_root(tmp_path)
    before = open_source(str(root))
    (root / META).unlink()
    after = open_source(str(root))
    assert (before.class_names, after.class_names) == (NAMED, WNIDS)
    assert before.fingerprint == after.fingerprint


class Evil:
    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return Path, ("/",)


def test_a_meta_bin_that_would_run_code_is_refused(tmp_path: Path) -> None:
    root = imagenet.torchvision_root(tmp_path)
    with zipfile.ZipFile(root / META, "w") as archive:
        archive.writestr("meta/data.pkl", pickle.dumps((Evil(), [])))
    with pytest.raises(
        ShardfeedError, match=r"cannot be read as what torchvision saves \(it holds pathlib.*: remove it"
    ):
        open_source(str(root))
