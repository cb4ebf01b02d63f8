"""Tars of WebDataset as a source of a conversion."""

import gzip
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from PIL import Image

from preprocess.sources import open_source
from preprocess.sources.source import Source, StoredSource
from shards.common.errors import ShardfeedError, UsageError
from shards.format.manifest import Manifest
from tests.helpers import imagenet
from tests.helpers.imagenet import TRAIN_IMAGES, VAL_IMAGES, VAL_WNIDS, WNIDS, sample, tar
from tests.helpers.jobs import convert, write_files
from tests.helpers.tars import tar_of

JPEG = TRAIN_IMAGES["n01440764_0.JPEG"]


def rows(source: Source, split: str) -> list[tuple[bytes, int]]:
    """Image and label of each row."""
    return [(row.data, row.label) for row in (source.row(split, i) for i in range(source.num_rows(split)))]


def one(root: Path, files: Mapping[str, bytes], name: str = "a-000.tar") -> Path:
    """A directory with one tar of these files."""
    return write_files(root, {name: tar(files)})


def test_tars_as_on_the_hub(tmp_path: Path) -> None:
    source = open_source(str(imagenet.webdataset_tars(tmp_path)))
    assert (source.splits, source.class_names) == (("train", "validation"), ("0", "1", "2"))
    assert rows(source, "train") == [(data, WNIDS.index(name[:9])) for name, data in TRAIN_IMAGES.items()]
    labels = [WNIDS.index(wnid) for wnid in VAL_WNIDS]
    assert rows(source, "validation") == list(zip(VAL_IMAGES.values(), labels, strict=True))
    assert source.row("train", 0).path == "m-train-0000.tar/n01440764_0.jpg"


def test_without_info_the_splits_go_by_the_names(tmp_path: Path) -> None:
    root = imagenet.webdataset_tars(tmp_path)
    whole = open_source(str(root))
    (root / "_info.json").unlink()
    assert open_source(str(root)).fingerprint == whole.fingerprint
    pattern = open_source(f"{root}/m-train-{{0000..0001}}.tar")
    assert (pattern.splits, rows(pattern, "train")) == (("train",), rows(whole, "train"))
    assert open_source(f"{root}/m-validation-00.tar").splits == ("validation",)


def test_labels_of_another_name(tmp_path: Path) -> None:
    about = json.dumps({"label": 3, "label_12k": 1}).encode()
    root = one(tmp_path, {"1.jpg": JPEG, "1.json": about, "1.cls": b"2"})
    assert rows(open_source(str(root)), "train")[0][1] == 2
    info = {"splits": {"train": {"filenames": ["a-000.tar"], "alt_label": "label_12k"}}}
    write_files(root, {"_info.json": json.dumps(info).encode()})
    assert rows(open_source(str(root)), "train")[0][1] == 1
    (root / "_info.json").unlink()
    one(root, {"1.jpg": JPEG, "1.json": about})
    assert rows(open_source(str(root)), "train")[0][1] == 3


def test_pictures_are_converted_and_negative_labels_and_samples_without_an_image_passed_over(tmp_path: Path) -> None:
    png = io.BytesIO()
    Image.open(io.BytesIO(JPEG)).save(png, "PNG")
    files = {"1.jpg": JPEG, "1.cls": b"-1", "2.txt": b"x", "2.cls": b"1", **sample("3", JPEG, 1)}
    source = one(tmp_path / "source", {**files, "4.png": png.getvalue(), "4.cls": b"0"})
    assert convert(source, tmp_path / "out", "--max-rejects", "0") == 0
    assert Manifest.read(tmp_path / "out").splits["train"].samples == 2
    lines = [json.loads(line) for line in (tmp_path / "out" / "train" / "rejects.jsonl").read_text().splitlines()]
    assert [(line["row"], line["path"], line["reason"]) for line in lines] == [
        (None, "a-000.tar/1.jpg", "passed over: its label is -1"),
        (None, "a-000.tar/2", "passed over: no image among its files (cls, txt)"),
    ]


def test_a_split_without_labels_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = one(one(tmp_path, {"1.jpg": JPEG}, "a-test-0.tar"), sample("1", JPEG, 0), "a-train-0.tar")
    assert open_source(str(root)).splits == ("train",)
    assert "leaving out split test: it has no labels" in capsys.readouterr().err
    with pytest.raises(UsageError, match=r"1 of 1 sample in split test .* have no label"):
        open_source(str(root), ["test"])


FAULTS: dict[str, tuple[Mapping[str, bytes], str]] = {
    "some labels are missing": (
        {**sample("1", JPEG, 0), "2.jpg": JPEG},
        r"1 of 2 samples in split train of .* have no label .*, such as a-000.tar/2",
    ),
    "a label that is no number": (
        {"1.jpg": JPEG, "1.cls": b"n01440764"},
        "a-000.tar/1: its label is no whole number: b'n01440764'",
    ),
    "a label that is a fraction": (
        {"1.jpg": JPEG, "1.json": b'{"label": 1.5}'},
        "a-000.tar/1: its json has no number under 'label'",
    ),
    "a json that is damaged": ({"1.jpg": JPEG, "1.json": b'{"la'}, "a-000.tar/1: its json cannot be read"),
    "a file twice": ({"1.jpg": JPEG, "1.JPG": JPEG, "1.cls": b"1"}, "a-000.tar: a-000.tar/1 has two members jpg"),
    "other things": ({"readme": b"text"}, "has no image with a label: a-000.tar holds readme"),
    "an archive under another name": (
        {"n01440764.tar": tar({})},
        "a-000.tar holds other tars; of ILSVRC2012 give the dir",
    ),
    "no images": (
        {"1.txt": b"x", "1.cls": b"1"},
        r"a-000.tar holds 1.txt, 1.cls \(passed over: no image among its files",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_line(tmp_path: Path, fault: str) -> None:
    files, message = FAULTS[fault]
    with pytest.raises(ShardfeedError, match=message) as raised:
        open_source(str(one(tmp_path, files)))
    assert "\n" not in str(raised.value)


def linked() -> bytes:
    """A tar with a whole sample, and one whose image is a link."""
    link = tarfile.TarInfo("2.jpg")
    link.type, link.linkname = tarfile.SYMTYPE, "1.jpg"
    out = io.BytesIO(tar({**sample("1", JPEG, 0), "2.cls": b"1"}))
    with tarfile.open(fileobj=out, mode="a") as archive:
        archive.addfile(link)
    return out.getvalue()


ONE, TWO = sample("1", JPEG, 0), sample("2", JPEG, 0)
ODD = {
    "an empty tar": (tar({}), 0, "a-000.tar: it holds no samples"),
    "two tars in one": (
        tar(ONE) + tar(TWO),
        1,
        "bytes follow the end of the archive",
    ),
    "a key twice": (
        tar_of([*ONE.items(), *TWO.items(), *ONE.items()]),
        3,
        "a-000.tar: 1 key comes twice, and each is used: 1",
    ),
    "a name without an extension": (
        tar({"README": b"x", **ONE}),
        1,
        "a-000.tar: 1 member has no extension, or a name for webdataset alone: README",
    ),
}


@pytest.mark.parametrize("kind", ODD)
def test_each_odd_tar_is_said_in_a_line(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, count, said = ODD[kind]
    root = write_files(one(tmp_path, sample("9", JPEG, 0), "b-000.tar"), {"a-000.tar": data})
    assert open_source(str(root)).num_rows("train") == count + 1
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_an_image_that_is_a_link_is_passed_over_by_this_reason(tmp_path: Path) -> None:
    source = open_source(str(write_files(tmp_path, {"a-000.tar": linked()})))
    assert isinstance(source, StoredSource)
    assert [each.reason for each in source.others["train"]] == ["passed over: its jpg is a link"]


def test_a_compressed_tar_is_to_be_decompressed_and_nothing_else(tmp_path: Path) -> None:
    root = write_files(tmp_path, {"a-000.tar": gzip.compress(tar(sample("1", JPEG, 0)))})
    with pytest.raises(ShardfeedError, match=r"a-000.tar cannot be read: it is compressed \(gzip\): unpack it first$"):
        open_source(str(root))


def info(tmp_path: Path, **changes: object) -> Path:
    """The tars as on the hub, with another description of their validation split."""
    root = imagenet.webdataset_tars(tmp_path)
    content = json.loads((root / "_info.json").read_text())
    content["splits"]["validation"] |= changes
    return write_files(root, {"_info.json": json.dumps(content).encode()})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shard_lengths": [5]}, "m-validation-00.tar has 4 samples, but _info.json says 5"),
        ({"shard_lengths": [4, 4]}, "_info.json has shard_lengths that are no list of a number for each tar"),
        ({"filenames": ["m-validation-00.tar", "more.tar"], "shard_lengths": None}, "names 'more.tar' .* no such tar"),
        ({"filenames": 3}, r"_info.json is damaged \(splits"),
    ],
)
def test_what_the_info_says_is_held_against_the_tars(
    tmp_path: Path, changes: Mapping[str, object], message: str
) -> None:
    with pytest.raises(ShardfeedError, match=message):
        open_source(str(info(tmp_path, **changes)))


def test_a_split_of_which_nothing_is_there_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = info(tmp_path, filenames=["more.tar"], shard_lengths=[4])
    assert open_source(str(root)).splits == ("train",)
    assert "leaving out split validation: none of its tars is here" in capsys.readouterr().err


def test_a_pattern_that_names_missing_tars_is_one_line(tmp_path: Path) -> None:
    root = imagenet.webdataset_tars(tmp_path)
    with pytest.raises(UsageError, match=r"2 of 4 tars are missing: .*m-train-0002.tar"):
        open_source(f"{root}/m-train-{{0000..0003}}.tar")
    with pytest.raises(UsageError, match=r"names more than 1,000,000 tars"):
        open_source(f"{root}/m-train-{{0..99999999999}}.tar")


def test_a_tar_beside_an_image_folder_is_nothing_to_it(tmp_path: Path) -> None:
    root = write_files(one(tmp_path, sample("1", JPEG, 0)), {"train/ant/1.jpg": JPEG})
    assert open_source(str(root)).class_names == ("ant",)


def test_an_archive_that_is_cut_short_is_named(tmp_path: Path) -> None:
    root = one(tmp_path, sample("1", JPEG, 0))
    data = (root / "a-000.tar").read_bytes()
    (root / "a-000.tar").write_bytes(data[: len(JPEG)])
    with pytest.raises(ShardfeedError, match=r"a-000.tar ends in the middle"):
        open_source(str(root))


def test_a_list_of_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--val-labels is for .* has labels of its own"):
        open_source(str(one(tmp_path, sample("1", JPEG, 0))), val_labels=tmp_path / "list")
