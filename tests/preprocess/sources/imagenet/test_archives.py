"""The archives of ILSVRC2012, in miniature."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from torchvision.datasets import ImageFolder

from preprocess.sources import open_source
from preprocess.sources.imagenet.archives import TRAIN, VAL
from preprocess.sources.imagenet.devkit import DEVKIT
from preprocess.sources.source import Source
from shards.common.errors import ShardfeedError, UsageError
from shards.dataset import open_dataset
from tests.helpers import imagenet
from tests.helpers.imagenet import TRAIN_IMAGES, VAL_IMAGES, VAL_WNIDS, WNIDS, WORDS
from tests.helpers.jobs import convert, interrupt_at, tree, write_files


def labels(source: Source, split: str) -> list[int]:
    """The labels of a split, in the order of its rows."""
    return [source.row(split, row).label for row in range(source.num_rows(split))]


def test_rows_and_labels_are_those_of_torchvisions_folders(tmp_path: Path) -> None:
    source = open_source(str(imagenet.archives(tmp_path / "archives")))
    folder = ImageFolder(str(imagenet.torchvision_root(tmp_path / "folders") / "train"))
    rows = [source.row("train", row) for row in range(source.num_rows("train"))]
    assert [(row.path, row.label, row.data) for row in rows] == [
        ("/".join(Path(path).parts[-2:]), label, Path(path).read_bytes()) for path, label in folder.samples
    ]
    assert source.class_names == tuple(f"{wnid}: {words}" for wnid, words in WORDS.items())


def test_the_devkits_numbers_become_places_among_the_sorted_wnids(tmp_path: Path) -> None:
    source = open_source(str(imagenet.archives(tmp_path)))
    assert labels(source, "val") == [WNIDS.index(wnid) for wnid in VAL_WNIDS]
    assert [source.row("val", row).path for row in range(4)] == list(VAL_IMAGES)
    assert [source.row("val", row).data for row in range(4)] == list(VAL_IMAGES.values())
    # `id - 1`, seen in public scripts, would be something else.
    assert labels(source, "val") != [number - 1 for number in imagenet.TRUTH]


def test_an_unpacked_devkit_and_other_places_of_the_archives_change_nothing(tmp_path: Path) -> None:
    packed = open_source(str(imagenet.archives(tmp_path / "packed")))
    moved = imagenet.archives(tmp_path / "moved")
    (moved / f"{DEVKIT}.tar.gz").unlink()
    write_files(moved / DEVKIT, imagenet.devkit())
    assert open_source(str(moved)).fingerprint == packed.fingerprint


def test_training_images_alone_need_no_devkit(tmp_path: Path) -> None:
    root = imagenet.archives(tmp_path)
    (root / f"{DEVKIT}.tar.gz").unlink()
    source = open_source(str(root), ["train"])
    assert (source.splits, source.class_names) == (("train",), WNIDS)
    with pytest.raises(UsageError, match=rf"{VAL} holds no labels: put {DEVKIT}.tar.gz into .* with --splits train"):
        open_source(str(root))


def test_a_list_of_labels_takes_the_devkits_place(tmp_path: Path) -> None:
    root = imagenet.archives(tmp_path / "source")
    (root / f"{DEVKIT}.tar.gz").unlink()
    (tmp_path / "val.txt").write_text("\n".join(VAL_WNIDS))
    source = open_source(str(root), ["val"], val_labels=tmp_path / "val.txt")
    assert labels(source, "val") == [WNIDS.index(wnid) for wnid in VAL_WNIDS]


def damaged(root: Path, files: Mapping[str, bytes | int]) -> Path:
    """The archives with other content of some; a number cuts a file to that length."""
    imagenet.archives(root)
    for name, content in files.items():
        data = (root / name).read_bytes()[:content] if isinstance(content, int) else content
        (root / name).write_bytes(data)
    return root


TENCH, FOX, SAW = (imagenet.tar(imagenet.train_files(wnid)) for wnid in WNIDS)
INNER = {"n01440764.tar": TENCH, "n02119789.tar": FOX, "n03000684.tar": SAW}
FAULTS: dict[str, tuple[Mapping[str, bytes | int], str]] = {
    "a training archive that was not downloaded whole": (
        {TRAIN: 20_000},
        rf"{TRAIN} \(the published one has 147,897,477,120 bytes\) ends in the middle",
    ),
    "a class that was not downloaded whole": (
        {TRAIN: imagenet.tar({**INNER, "n02119789.tar": FOX[:2000]})},
        r"n02119789.tar ends in the middle \(2,000 bytes, no end mark\)",
    ),
    "an archive of other things": ({TRAIN: imagenet.tar({"a.JPEG": b"x"})}, "holds a.JPEG: .* nothing but <wnid>.tar"),
    "a class that the devkit does not have": (
        {TRAIN: imagenet.tar({**INNER, "n09999999.tar": FOX})},
        "holds n09999999.tar, whose WNID is none of the 3 in the devkit",
    ),
    "no archive": ({VAL: b"<html>" * 2000}, "cannot be read: it is no tar; copy or download it again"),
    "validation images that were not downloaded whole": (
        {VAL: 4096},
        r"the published one has 6,744,924,160 bytes\) ends in the middle",
    ),
    "validation images without a label": (
        {VAL: imagenet.tar({**VAL_IMAGES, "ILSVRC2012_val_00000005.JPEG": b"x"})},
        "has 5 images, but the devkit has labels for 4",
    ),
    "half of a devkit": ({f"{DEVKIT}.tar.gz": 100}, "cannot be read as the devkit"),
    "a devkit of something else": ({f"{DEVKIT}.tar.gz": b""}, "cannot be read as the devkit"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_line(tmp_path: Path, fault: str) -> None:
    files, message = FAULTS[fault]
    with pytest.raises(ShardfeedError, match=message) as raised:
        open_source(str(damaged(tmp_path, files)))
    assert "\n" not in str(raised.value)


def test_a_devkit_with_a_number_that_is_no_class_is_refused(tmp_path: Path) -> None:
    root = imagenet.archives(tmp_path)
    (root / f"{DEVKIT}.tar.gz").unlink()
    write_files(root / DEVKIT, imagenet.devkit(truth=(1, 2, 3, 4)))
    with pytest.raises(ShardfeedError, match="holds 4, which is no class"):
        open_source(str(root))


def test_a_class_that_is_missing_keeps_its_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = damaged(tmp_path, {TRAIN: imagenet.tar({name: INNER[name] for name in ("n01440764.tar", "n03000684.tar")})})
    source = open_source(str(root), ["train"])
    assert set(labels(source, "train")) == {0, 2}
    assert "split train lacks 1 of 3 classes: n02119789" in capsys.readouterr().err


def test_what_was_unpacked_comes_before_the_archives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = imagenet.torchvision_root(imagenet.archives(tmp_path))
    assert open_source(str(root)).row("train", 0).path.startswith("train/")
    assert f"taking the images from its folders, and none from {TRAIN} and {VAL}" in capsys.readouterr().err


def test_a_stopped_conversion_goes_on_and_another_scan_gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out, whole = imagenet.archives(tmp_path / "source"), tmp_path / "out", tmp_path / "whole"
    with monkeypatch.context() as patch:
        interrupt_at(patch, 6)
        assert convert(source, out, "--keep", "path") == 1
    assert not (out / "manifest.json").exists()
    assert convert(source, out, "--keep", "path") == 0
    assert convert(source, whole, "--keep", "path") == 0
    assert tree(out) == tree(whole)
    split = open_dataset(out)["val"]
    assert dict(zip(split.column("path"), split.labels, strict=True)) == {
        name: WNIDS.index(wnid) for name, wnid in zip(VAL_IMAGES, VAL_WNIDS, strict=True)
    }


def test_files_in_a_class_that_are_no_images_are_rejects_and_not_a_stop(tmp_path: Path) -> None:
    odd = imagenet.tar({**imagenet.train_files(WNIDS[0]), "readme.txt": b"text"})
    root, out = damaged(tmp_path / "source", {TRAIN: imagenet.tar({**INNER, "n01440764.tar": odd})}), tmp_path / "out"
    assert convert(root, out, "--splits", "train", "--max-rejects", "0.5") == 0
    lines = [json.loads(line) for line in (out / "train" / "rejects.jsonl").read_text().splitlines()]
    assert [line["path"] for line in lines] == ["n01440764/readme.txt"]


def test_what_follows_the_end_of_an_archive_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    twice = imagenet.tar(imagenet.train_files(WNIDS[0])) * 2
    val = imagenet.tar(VAL_IMAGES) * 2
    root = damaged(tmp_path, {TRAIN: imagenet.tar({**INNER, "n01440764.tar": twice}), VAL: val})
    open_source(str(root))
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[:2] for line in lines if "bytes follow the end of the archive" in line] == [
        [str(root / VAL), lines[0].split(": ")[1]],
        [str(root / TRAIN), "n01440764.tar"],
    ]


def test_the_images_are_all_of_them(tmp_path: Path) -> None:
    source = open_source(str(imagenet.archives(tmp_path)))
    assert sorted(source.row("train", row).data for row in range(9)) == sorted(TRAIN_IMAGES.values())
