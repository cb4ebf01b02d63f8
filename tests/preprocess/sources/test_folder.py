"""Image folders as people have them: which files are images, whatever they are called, and where they lie."""

import json
import os
from pathlib import Path

import pytest

from preprocess.__main__ import main
from preprocess.sources import open_source
from shards.common.errors import UsageError
from shards.format.manifest import Manifest
from shards.format.verify import verify
from tests.conftest import jpeg, photo
from tests.helpers.jobs import convert, folder, tree, write_files

JPEG = jpeg(photo(20, 20))


def paths(root: Path, split: str = "train") -> list[str]:
    source = open_source(str(root))
    return [source.row(split, row).path for row in range(source.num_rows(split))]


def rejects(out: Path) -> dict[str, str]:
    lines = (out / "train" / "rejects.jsonl").read_text(encoding="utf-8").splitlines()
    return {entry["path"]: entry["reason"] for entry in map(json.loads, lines)}


def test_an_image_is_what_its_bytes_say_and_all_else_is_rejected_by_name(tmp_path: Path) -> None:
    names = ["a.jfif", "b.jpe", "C.JPG", "d", "e.txt", "f.jpeg"]
    odd = {f"train/a/{name}": JPEG for name in names} | {"train/a/notes.jpg": b"text", "train/a/readme": b"text"}
    out = tmp_path / "out"
    assert convert(folder(tmp_path / "source", {"train": 4}, odd), out, "--max-rejects", "0.5") == 0
    assert Manifest.read(out).splits["train"].samples == 4 + len(names)
    assert set(rejects(out)) == {"train/a/notes.jpg", "train/a/readme"}


def test_notes_beside_images_are_passed_over_and_said_and_count_for_no_limit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    notes = {
        "train/a/README.txt": b"text",
        "train/a/e.txt": JPEG,
        "train/a/boxes.CSV": b"1,2",
        "train/a/empty.xml": b"",
    }
    out = tmp_path / "out"
    assert convert(folder(tmp_path / "source", {"train": 4}, notes), out) == 0
    assert (
        "passing over 3 files: train/a/README.txt (no image), train/a/boxes.CSV (no image)" in capsys.readouterr().err
    )
    info = Manifest.read(out).splits["train"]
    assert (info.samples, info.rejects) == (5, 0)
    assert set(rejects(out).values()) == {"passed over: no image"}


def test_class_folders_alone_are_one_split(tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    write_files(source, {"n02/b.jpg": JPEG, "n01/a.jpg": JPEG, "n02/c.jpg": JPEG, "readme.txt": b"text"})
    assert paths(source) == ["n01/a.jpg", "n02/b.jpg", "n02/c.jpg"]
    assert convert(source, out) == 0
    manifest = Manifest.read(out)
    assert manifest.class_names == ("n01", "n02")
    assert manifest.splits["train"].samples == 3
    assert not verify(out).problems


def test_folders_called_as_splits_are_no_classes(tmp_path: Path) -> None:
    write_files(tmp_path, {"train/a.jpg": JPEG, "test/b.jpg": JPEG})
    with pytest.raises(UsageError, match="nor images in folders"):
        open_source(str(tmp_path))


def test_files_that_are_no_rows_are_listed_behind_the_rejects_and_change_no_shard(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = {"train/a/notes.jpg": b"text"}
    odd = {f"train/a/{name}": JPEG for name in ("._x.jpg", "Thumbs.db", ".cache/1.jpg")} | {"train/loose.jpg": JPEG}
    source = folder(tmp_path / "source", {"train": 4}, broken | odd)
    os.mkfifo(source / "train" / "a" / "pipe.jpg")
    out, whole = tmp_path / "out", tmp_path / "whole"
    assert convert(source, out, "--max-rejects", "0.5") == 0
    printed = capsys.readouterr()
    assert "passing over 5 files: train/loose.jpg (it lies in no class), " in printed.err
    assert "rejects.jsonl" not in printed.err  # not written yet, and a dry run writes none
    assert f"rejects 1, files passed over 5 (see {out}/train/rejects.jsonl)\n" in printed.out
    assert "\n  left out: not an image in a known format, or its header is damaged: 1\n" in printed.out
    lines = [json.loads(line) for line in (out / "train" / "rejects.jsonl").read_text().splitlines()]
    assert [(line["row"], line["path"], line["reason"]) for line in lines[1:]] == [
        (None, "train/a/._x.jpg", "passed over: a hidden or system file"),
        (None, "train/a/.cache", "passed over: a hidden or system file"),
        (None, "train/a/Thumbs.db", "passed over: a hidden or system file"),
        (None, "train/a/pipe.jpg", "passed over: no regular file"),
        (None, "train/loose.jpg", "passed over: it lies in no class"),
    ]
    assert Manifest.read(out).splits["train"].rejects == 1
    assert not verify(out).problems
    assert convert(folder(tmp_path / "clean", {"train": 4}, broken), whole, "--max-rejects", "0.5") == 0
    ours, theirs = tree(out), tree(whole)
    stored = [name for name in theirs if name.endswith((".tar", ".idx", ".parquet"))]
    assert len(stored) == 5
    assert [ours[name] for name in stored] == [theirs[name] for name in stored]
    (out / "train" / "rejects.jsonl").unlink()
    assert main([str(source), str(out), "--repair"]) == 0
    assert tree(out) == ours


def test_images_deeper_in_a_class_are_found_and_loops_are_not_followed(tmp_path: Path) -> None:
    odd = {"train/a/images/1.jpg": JPEG, "train/a/0.jpg": JPEG, "train/b/images/more/2.jpg": JPEG}
    source = write_files(tmp_path, odd)
    (source / "train" / "a" / "images" / "loop").symlink_to(source / "train")
    assert paths(source) == ["train/a/0.jpg", "train/a/images/1.jpg", "train/b/images/more/2.jpg"]


def test_a_class_that_one_split_lacks_is_in_the_list_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = {f"{name}/1.jpg": JPEG for name in ("train/ant", "train/cat", "validation/bee", "validation/cat")}
    source = open_source(str(write_files(tmp_path, odd)))
    assert source.class_names == ("ant", "bee", "cat")
    assert [source.row("validation", row).label for row in range(2)] == [1, 2]
    said = capsys.readouterr().err
    assert "split train lacks 1 of 3 classes: bee" in said
    assert "split validation lacks 1 of 3 classes: ant" in said


def test_a_class_without_an_image_is_a_class_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_files(tmp_path, {"train/ant/1.jpg": JPEG, "train/fly/Thumbs.db": JPEG, "val/ant/1.jpg": JPEG})
    (root / "train" / "bee").mkdir()
    assert open_source(str(root)).class_names == ("ant", "bee", "fly")
    assert "2 classes have no image in train, val, and are classes all the same: bee, fly\n" in capsys.readouterr().err


def test_names_that_are_no_utf_8_are_converted_and_written_down(tmp_path: Path) -> None:
    source, out = tmp_path / os.fsdecode(b"sourc\xe9"), tmp_path / "out"
    write_files(source / "train", {os.fsdecode(b"caf\xe9/1.jpg"): JPEG, os.fsdecode(b"tea/\xff.jpg"): b"damaged"})
    assert convert(source, out, "--max-rejects", "0.5") == 0
    manifest = Manifest.read(out)
    assert manifest.class_names == (r"caf\xe9", "tea")
    assert manifest.source.endswith(r"sourc\xe9")
    assert set(rejects(out)) == {r"train/tea/\xff.jpg"}
    assert convert(source, out, "--max-rejects", "0.5") == 0  # complete already


def test_what_is_no_image_folder_says_what_was_found(tmp_path: Path) -> None:
    write_files(tmp_path, {"notes/old/a.txt": b"text", "list.csv": b"a,b"})
    with pytest.raises(UsageError, match=r"nor images in folders <split>/<class>/\*.jpg: it holds list.csv, notes/"):
        open_source(str(tmp_path))
