"""The whole job on small data sets made in memory: what it writes, how it resumes, what it refuses."""

import errno
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from preprocess.__main__ import main
from preprocess.sources import open_source
from preprocess.sources.folder import FolderImages
from preprocess.sources.source import StoredSource
from shards.dataset import open_dataset
from shards.format.manifest import Manifest
from tests import ROOT
from tests.conftest import SHARED, jpeg, photo
from tests.helpers.jobs import BROKEN, convert, count_reads, folder, interrupt_at, line, tree
from tests.helpers.pictures import picture, rotated, saved


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return folder(tmp_path / "source", {"train": 23, "validation": 5})


def test_the_data_set_is_whole_and_holds_every_image_once(source: Path, tmp_path: Path) -> None:
    assert convert(source, tmp_path / "out", "--workers", "2") == 0
    splits = open_dataset(tmp_path / "out")
    assert {name: len(split) for name, split in splits.items()} == {"train": 23, "validation": 5}
    train = splits["train"]
    keys = train.keys().tolist()
    assert sorted(keys) == [f"{row:08d}" for row in range(23)]
    assert [shard.samples for shard in train.info.shards] == [4, 4, 4, 4, 4, 3]
    assert all(min(size) == 16 for size in zip(train.index.width, train.index.height, strict=True))
    # Row numbers of a folder follow its sorted classes: 12 images of "a", then 11 of "b".
    assert [int(key) >= 12 for key in keys] == train.labels.astype(bool).tolist()
    assert not (tmp_path / "out" / ".work").exists()


def test_the_manifest_tells_what_made_it(source: Path, tmp_path: Path) -> None:
    folder(source, {}, {"train/a/x.jpg": saved(picture("L"), "JPEG"), "train/b/y.jpg": rotated(6)})
    convert(source, tmp_path / "out", "--quality", "77", "--seed", "3")
    manifest = Manifest.read(tmp_path / "out")
    assert manifest.source == str(source)
    assert manifest.class_names == ("a", "b")
    settings = manifest.settings
    assert (settings.short_side, settings.quality, settings.shard_size, settings.seed) == (16, 77, 4, 3)
    assert manifest.splits["train"].kinds == {"jpeg": 23, "jpeg exif-rotated": 1, "jpeg gray": 1}
    assert set(manifest.libraries) == {"pillow", "simplejpeg"}


def test_original_keeps_the_bytes(source: Path, tmp_path: Path) -> None:
    main([str(source), str(tmp_path / "out"), "--original", "--workers", "1"])
    split = open_dataset(tmp_path / "out")["validation"]
    data = split.shard_paths[0].read_bytes()
    index = split.index
    kept = {data[start : start + size] for start, size in zip(index.offset, index.size, strict=True)}
    assert kept == {path.read_bytes() for path in (source / "validation").rglob("*.jpg")}
    assert Manifest.read(tmp_path / "out").settings.short_side is None


def test_two_workers_write_the_same_bytes_as_one(source: Path, tmp_path: Path) -> None:
    assert convert(source, tmp_path / "one") == 0
    assert convert(source, tmp_path / "two", "--workers", "2") == 0
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_the_seed_changes_the_order_and_nothing_else(source: Path, tmp_path: Path) -> None:
    keys = []
    for seed in ("0", "1"):
        convert(source, tmp_path / seed, "--seed", seed)
        keys.append(open_dataset(tmp_path / seed)["train"].keys().tolist())
    assert keys[0] != keys[1]
    assert sorted(keys[0]) == sorted(keys[1])


def test_a_complete_data_set_is_left_alone(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    convert(source, tmp_path / "out")
    before = tree(tmp_path / "out")
    capsys.readouterr()
    assert convert(source, tmp_path / "out") == 0
    assert "is complete already: 23 samples in train, 5 samples in validation" in capsys.readouterr().out
    assert tree(tmp_path / "out") == before


def test_another_data_set_is_refused(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    convert(source, tmp_path / "out")
    before = tree(tmp_path / "out")
    capsys.readouterr()
    assert convert(source, tmp_path / "out", "--splits", "train", "--quality", "50") == 2
    said = line(capsys)
    assert (
        "holds a different data set (--splits train (23 rows) validation (5 rows) there, train (23 rows) here" in said
    )
    assert "--quality 90 there, 50 here" in said
    assert tree(tmp_path / "out") == before


def test_a_directory_of_other_files_is_refused(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(source, source) == 2
    assert "holds other files (train, validation) and no data set of this program" in line(capsys)
    (tmp_path / "file").write_text("")
    assert convert(source, tmp_path / "file") == 2
    assert "is a file" in line(capsys)


def test_an_empty_directory_is_as_good_as_none(source: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / ".work").mkdir(parents=True)  # what a kill before the plan leaves
    assert convert(source, tmp_path / "out") == 0


def test_one_reject_stops_a_small_job_and_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = folder(tmp_path / "source", {"train": 20}, {"train/b/zzz.jpg": BROKEN})
    assert convert(source, tmp_path / "out") == 1
    said = line(capsys)
    assert "1 of the 21 images of train cannot be used, and --max-rejects 0.001 allows 0" in said
    assert "row 20 (train/b/zzz.jpg): truncated JPEG" in said
    assert "--max-rejects 0.05" in said
    assert json.loads((tmp_path / "out" / "train" / "rejects.jsonl").read_text())["row"] == 20
    assert convert(source, tmp_path / "out", "--max-rejects", "0.05") == 0


def test_rejects_are_listed_counted_and_in_no_shard(tmp_path: Path) -> None:
    odd = {"train/a/0.jpg": BROKEN, "train/b/zzz.jpg": b"", "train/b/yyy.jpg": jpeg(photo(300, 2))}
    source = folder(tmp_path / "source", {"train": 10, "validation": 2}, odd)
    assert convert(source, tmp_path / "out", "--max-rejects", "0.5") == 0
    rejects = [json.loads(text) for text in (tmp_path / "out" / "train" / "rejects.jsonl").read_text().splitlines()]
    assert [(entry["split"], entry["row"], entry["path"]) for entry in rejects] == [
        ("train", 0, "train/a/0.jpg"),
        ("train", 11, "train/b/yyy.jpg"),
        ("train", 12, "train/b/zzz.jpg"),
    ]
    assert all(entry["reason"] for entry in rejects)
    split = open_dataset(tmp_path / "out")["train"]
    assert (len(split), split.info.rejects) == (10, 3)
    assert split.info.reasons == {
        "W x H pixels: one side is more than 64 times the other": 1,
        "the file is empty (0 bytes)": 1,
        "truncated JPEG: its data ends too early": 1,
    }
    keys = split.keys().tolist()
    assert {0, 11, 12}.isdisjoint(map(int, keys))
    assert (tmp_path / "out" / "validation" / "rejects.jsonl").read_bytes() == b""


def test_a_file_that_vanished_is_a_reject(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = open_source(str(source))
    monkeypatch.setattr("preprocess.run.open_source", lambda *_: opened)
    (source / "train" / "a" / "000.jpg").unlink()
    assert convert(source, tmp_path / "out", "--max-rejects", "0.5") == 0
    assert "its file cannot be read" in (tmp_path / "out" / "train" / "rejects.jsonl").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--short-side", "64", "--original"], "give one of them"),
        (["--workers", "0"], "--workers must be from 1 to 1,024, not 0"),
        (["--max-rejects", "2"], "--max-rejects must be a fraction"),
        (["--quality", "0"], "quality must be 1 to 100"),
        (["--short-side", "0"], "shorter side must be"),
        (["--shard-size", "0"], "at least 1 sample"),
        (["--splits", "train", "nope"], "no split nope: it has train, validation"),
        (["--speed", "9"], "--speed"),
        (["--order", "random"], "--order"),
        (["--tasks", "4/4"], "no such slice, the 4 are 0 to 3"),
        (["--tasks", "1-4"], "give i/n, i from 0 to n - 1"),
        (["--tasks", "0/4", "--finish"], "--tasks and --finish do not go together"),
        (["--repair", "--dry-run"], "--dry-run is for making shards and does not go with --repair"),
        (["--repair"], "give the directory that `python -m preprocess` wrote"),
    ],
)
def test_wrong_options_are_one_line_and_write_nothing(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert main([str(source), str(tmp_path / "out"), *options]) == 2
    assert message in line(capsys)
    assert not (tmp_path / "out").exists()


def test_help_is_quick_to_import() -> None:
    code = "import sys, preprocess.__main__; print(sorted({'torch', 'datasets', 'PIL'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_other_versions_of_the_image_libraries_do_not_finish_what_these_began(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        interrupt_at(patch, 11)
        convert(source, tmp_path / "out")
    capsys.readouterr()
    path = tmp_path / "out" / ".work" / "plan.json"
    plan = json.loads(path.read_text())
    path.write_text(json.dumps({**plan, "libraries": {**plan["libraries"], "pillow": "1.0"}}))
    assert convert(source, tmp_path / "out") == 2
    assert "made differently (pillow 1.0 there," in line(capsys)


@pytest.mark.skipif(not (SHARED / "imagenet-sample").is_dir(), reason="the real images are not here")
def test_every_real_image_is_usable(tmp_path: Path) -> None:
    arguments = [str(SHARED / "imagenet-sample"), str(tmp_path / "out"), "--splits", "validation", "--workers", "1"]
    assert main(arguments) == 0
    info = Manifest.read(tmp_path / "out").splits["validation"]
    assert (info.samples, info.rejects) == (100, 0)
    assert info.kinds["jpeg gray"] + info.kinds["jpeg gray icc"] == 3


def test_source_order_keeps_rows_in_their_window(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("preprocess.options.WINDOW", 10)
    read = count_reads(monkeypatch)
    assert convert(source, tmp_path / "out", "--order", "source", "--splits", "train") == 0
    keys = [int(key) for key in open_dataset(tmp_path / "out")["train"].keys().tolist()]
    assert [sorted(keys[start : start + 10]) for start in (0, 10)] == [list(range(10)), list(range(10, 20))]
    assert keys != sorted(keys)
    # Of a shard's rows, those in front are read first, wherever in the shard they go.
    shards = [4, 4, 4, 4, 4, 3]
    starts = [sum(shards[:number]) for number in range(6)]
    made = read[-23:]
    assert made == [row for start, n in zip(starts, shards, strict=True) for row in sorted(keys[start : start + n])]
    assert Manifest.read(tmp_path / "out").settings.window == 10


def test_source_order_is_the_same_for_two_workers_and_refuses_to_go_on_globally(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(source, tmp_path / "one", "--order", "source") == 0
    assert convert(source, tmp_path / "two", "--order", "source", "--workers", "2") == 0
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    capsys.readouterr()
    assert convert(source, tmp_path / "one") == 2
    assert "--order source (windows of 10,000 rows) there, global here" in line(capsys)


def test_a_source_that_fails_names_the_row(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    read = FolderImages.read

    def failing(self: FolderImages, row: int) -> tuple[bytes, str]:
        if self.name(row) == "train/b/007.jpg":
            raise OSError(errno.EIO, "Input/output error", self.name(row))
        return read(self, row)

    monkeypatch.setattr(FolderImages, "read", failing)
    assert convert(source, tmp_path / "out") == 1
    assert f"row 15 of train in {source} cannot be read or converted: OSError" in (said := line(capsys))
    assert "Input/output error: 'train/b/007.jpg'" in said


def test_the_closing_summary_counts_kinds_and_reasons(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = {"train/a/x.jpg": saved(picture("L"), "JPEG"), "train/b/y.jpg": b"", "train/b/z.jpg": jpeg(photo(300, 2))}
    source = folder(tmp_path / "source", {"train": 10}, odd)
    assert convert(source, tmp_path / "out", "--max-rejects", "0.5") == 0
    said = capsys.readouterr().out
    assert "train: samples 11, shards 4" in said
    assert "from jpeg: 10, jpeg gray: 1" in said
    assert "left out: W x H pixels: one side is more than 64 times the other: 1; the file is empty (0 bytes): 1" in said


class DeadlyImages(FolderImages):
    """Image files of which one crashes the process that reads it."""

    def read(self, row: int) -> tuple[bytes, str]:
        if self.name(row) == "train/b/007.jpg":
            os.kill(os.getpid(), signal.SIGSEGV)
        return super().read(row)


@pytest.mark.parametrize("order", ["global", "source"])
def test_an_image_that_kills_a_worker_is_named(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], order: str
) -> None:
    opened = open_source(str(source))
    assert isinstance(opened, StoredSource)
    images = {split: DeadlyImages(**vars(files)) for split, files in opened.images.items()}
    monkeypatch.setattr("preprocess.run.open_source", lambda *_: replace(opened, images=images))
    assert convert(source, tmp_path / "out", "--workers", "2", "--order", order) == 1
    said = capsys.readouterr().err
    assert "a worker process was killed by SIGSEGV (a library crashed on what it was given) at row 15 of train" in said
    assert "shards are finished and kept" in said
