"""Indexing: where the index goes, what becomes of odd tars and samples, and how a stopped run goes on."""

import contextlib
import gzip
import json
import os
import pickle
import re
import shlex
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest

from preprocess.index import job as job_module
from preprocess.index.job import index
from preprocess.index.options import Options
from preprocess.index.scan import Rules
from preprocess.index.tar_job import TarJob
from shards.__main__ import COMMANDS
from shards.common.cli import run_commands
from shards.common.errors import ShardfeedError, UsageError
from shards.dataset import open_dataset
from shards.format.layout import MANIFEST
from shards.format.verify import verify
from shards.indexed.source import open_source
from tests.conftest import jpeg, photo, write_split
from tests.helpers.tars import indexed, tar_of, write_tar

IMAGE = jpeg(photo(40, 44))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))


def samples(count: int, first: int = 0) -> list[dict[str, Any]]:
    return [{"__key__": f"{first + i:04d}", "jpg": IMAGE, "cls": i % 5} for i in range(count)]


def pair(key: str, label: bytes = b"3") -> list[tuple[str, bytes]]:
    return [(f"{key}.jpg", IMAGE), (f"{key}.cls", label)]


def rejects(root: Path, split: str = "train") -> list[tuple[str, str]]:
    lines = (root / split / "rejects.jsonl").read_text().splitlines()
    return [(entry["path"], entry["reason"]) for entry in map(json.loads, lines)]


def test_the_index_of_a_pattern_lies_beside_the_tars_and_moves_with_them(tmp_path: Path) -> None:
    for number in range(2):
        write_tar(tmp_path / f"a/x-validation-{number}.tar", samples(3, 3 * number))
    splits = indexed(tmp_path / "a" / "x-validation-{0..1}.tar")
    assert {name: len(split) for name, split in splits.items()} == {"validation": 6}
    (tmp_path / "a").rename(tmp_path / "b")
    moved = open_dataset(tmp_path / "b" / "x-validation-{0..1}.tar")["validation"]
    assert moved.keys().tolist() == [f"{i:04d}" for i in range(6)]
    assert all(path.is_file() for path in moved.shard_paths)
    assert moved.class_names == ("0", "1", "2")


def test_a_directory_gives_splits_by_the_names_of_its_tars(tmp_path: Path) -> None:
    write_tar(tmp_path / "imagenet1k-train-0000.tar", samples(4))
    write_tar(tmp_path / "imagenet1k-validation-00.tar", samples(2))
    splits = indexed(tmp_path)
    assert {name: len(split) for name, split in splits.items()} == {"train": 4, "validation": 2}
    assert (tmp_path / MANIFEST).is_file()


def test_keys_that_come_again_in_another_tar_are_samples_without_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(2):
        write_tar(tmp_path / "tars" / f"{number}.tar", samples(2))
    split = indexed(tmp_path / "tars")["train"]
    assert split.keys().tolist() == ["0000", "0001"] * 2
    assert "twice" not in "".join(capsys.readouterr())
    (tmp_path / "names.txt").write_text("0001\n")
    with pytest.raises(UsageError, match="'0001' is the name of 2 samples"):
        split.subset(tmp_path / "names.txt")


@pytest.mark.parametrize("given", ["x-train-{0..0}.tar", ""])
def test_the_lines_at_the_end_fit_a_split_to_train_on_alone(
    given: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tar(tmp_path / "x-train-0.tar", samples(40))
    indexed(tmp_path / given)
    lines = capsys.readouterr().out.splitlines()
    place = shlex.quote(str(tmp_path / given))
    at = lines.index("these lines work now:")
    assert lines[at + 1] == f"  python -m train --data {place} --size 40 --val-fraction 0.05"


def test_timms_info_gives_splits_and_the_field_of_the_label(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labelled = [{**each, "json": {"fine": 9 - i}} for i, each in enumerate(samples(3))]
    for name in ("a", "b", "c"):
        write_tar(tmp_path / f"{name}.tar", labelled)
    info = {
        "train": {"name": "train", "filenames": ["b.tar", "a.tar"], "num_samples": 7, "alt_label": "fine"},
        "test": {"name": "test", "filenames": ["c.tar"], "num_samples": 3, "shard_lengths": [3]},
    }
    (tmp_path / "_info.json").write_text(json.dumps({"splits": info}))
    splits = indexed(tmp_path)
    assert {name: len(split) for name, split in splits.items()} == {"train": 6, "test": 3}
    assert [path.name for path in splits["train"].shard_paths] == ["b.tar", "a.tar"]
    assert splits["test"].labels.tolist() == [9, 8, 7]
    assert capsys.readouterr().err.splitlines() == ["_info.json says 7 samples of train, and 6 were found"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"splits": {"train": {"filenames": ["../a.tar"]}}}', "names '../a.tar' in the split train, and there is no"),
        ('{"splits": {"../x": {"filenames": ["a.tar"]}}}', "'../x' cannot be the name of a split"),
        ('{"splits": {"train": {"filenames": "a.tar"}}}', "is damaged"),
        ("{", "is damaged"),
    ],
)
def test_an_info_that_cannot_be_is_refused_in_a_line(tmp_path: Path, content: str, said: str) -> None:
    write_tar(tmp_path / "a.tar", samples(1))
    (tmp_path / "_info.json").write_text(content)
    with pytest.raises(UsageError, match=said):
        index(Options(str(tmp_path), workers=1))


def test_where_the_tars_cannot_be_written_beside_the_index_goes_to_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tar(tmp_path / "tars" / "a.tar", samples(2))
    monkeypatch.setattr("os.access", lambda *_: False)
    assert len(indexed(tmp_path / "tars")["train"]) == 2
    assert not list((tmp_path / "tars").glob("*.json"))
    assert len(list((tmp_path / "home" / "shardfeed" / "datasets").rglob(MANIFEST))) == 1


def test_an_index_elsewhere_is_opened_by_its_own_directory(tmp_path: Path) -> None:
    write_tar(tmp_path / "tars" / "a.tar", samples(2))
    split = indexed(tmp_path / "tars", tmp_path / "to")["train"]
    assert split.shard_paths == [tmp_path / "tars" / "a.tar"]
    assert sorted(path.name for path in (tmp_path / "tars").iterdir()) == ["a.tar"]


def test_labels_come_from_where_the_options_say_and_names_from_a_file(tmp_path: Path) -> None:
    each = [{"__key__": "a", "jpg": IMAGE, "cls": 1, "cls2": 2, "json": {"coarse": "0"}}]
    write_tar(tmp_path / "a.tar", each)
    (tmp_path / "names").write_text("cat\ndog\nbird\n")
    for label, number in {None: 1, "cls2": 2, "json:coarse": 0}.items():
        split = indexed(tmp_path / "a.tar", tmp_path / f"to-{label}", label=label, class_names=tmp_path / "names")
        assert split["train"].labels.tolist() == [number]
        assert split["train"].class_names == ("cat", "dog", "bird")


def test_labels_may_be_the_names_of_the_classes(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar_of([*pair("a", b"dog\n"), *pair("b", b"cat"), *pair("c", b"cow")]))
    (tmp_path / "names").write_text("cat\ndog\n")
    assert indexed(tmp_path, class_names=tmp_path / "names")["train"].labels.tolist() == [1, 0]
    assert rejects(tmp_path) == [("a.tar/c", "its label is no whole number: b'cow' (--class-names has no such name)")]


def test_a_label_beyond_the_names_stops_the_job_in_a_line(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", samples(5))
    (tmp_path / "names").write_text("cat\ndog\n")
    with pytest.raises(UsageError, match="--class-names has 2 names, for labels from 0, and the label of 0002 is 2"):
        indexed(tmp_path, class_names=tmp_path / "names")
    assert not (tmp_path / MANIFEST).exists()


def test_more_rejects_than_allowed_end_the_job_and_say_how_to_go_on(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar_of([*pair("a"), ("b.jpg", IMAGE), ("b.txt", b"3")]))
    with pytest.raises(ShardfeedError) as failed:
        index(Options(str(tmp_path), workers=1))
    said = "1 of the 2 images of train cannot be used, and --max-rejects 0.001 allows 0: a.tar/b: it has no label (cls,"
    assert str(failed.value).startswith(said)
    assert str(failed.value).endswith("To leave them out and go on, add --max-rejects 0.5; or mend the tars")
    index(Options(str(tmp_path), workers=1, max_rejects=0.5))
    assert len(open_dataset(tmp_path)["train"]) == 1


def test_a_split_without_labels_is_no_reject_too_many(tmp_path: Path) -> None:
    write_tar(tmp_path / "x-train-0.tar", samples(2))
    write_tar(tmp_path / "x-test-0.tar", [{**each, "cls": -1} for each in samples(2)])
    index(Options(str(tmp_path), workers=1))
    assert {name: len(split) for name, split in open_dataset(tmp_path).items()} == {"train": 2, "test": 0}


@pytest.mark.parametrize(
    ("members", "advice"),
    [
        ([("a.jpg", IMAGE), ("a.txt", b"3")], "only jpg, txt (--label txt takes that)"),
        (pair("a", b"cat"), "b'cat' (--class-names FILE takes names)"),
    ],
)
def test_labels_elsewhere_are_a_mistake_that_the_same_command_does_not_mend(
    members: list[tuple[str, bytes]], advice: str, tmp_path: Path
) -> None:
    (tmp_path / "a.tar").write_bytes(tar_of(members))
    with pytest.raises(ShardfeedError, match=rf"no tar of .* holds a sample: a: .*{re.escape(advice)}$"):
        index(Options(str(tmp_path), workers=1))


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        (b"-1", "its label is negative, which stands for none"),
        (b"cat", "its label is no whole number: b'cat' (--class-names FILE takes names)"),
        (b"1_0", "its label is no whole number: b'1_0' (--class-names FILE takes names)"),
        (b"1000000", "its label is 1,000,000, more than the last class has"),
        (b"9" * 70, "its cls has 70 bytes, more than any has"),
    ],
)
def test_samples_without_a_usable_label_are_rejects(tmp_path: Path, label: bytes, reason: str) -> None:
    (tmp_path / "a.tar").write_bytes(tar_of([*pair("a"), *pair("b", label)]))
    assert len(indexed(tmp_path)["train"]) == 1
    assert rejects(tmp_path) == [("a.tar/b", reason)]


@pytest.mark.parametrize("content", [b"{", b"[1]", b'{"label": true}', b'{"label": 1.5}', b"{}", b"[" * 100_000])
def test_a_json_without_a_label_is_a_reject(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.tar").write_bytes(tar_of([*pair("a"), ("b.jpg", IMAGE), ("b.json", content)]))
    assert len(indexed(tmp_path)["train"]) == 1
    assert "json" in rejects(tmp_path)[0][1]


def linked() -> bytes:
    link = tarfile.TarInfo("b.jpg")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    before = tar_of(pair("a")).rstrip(b"\0")
    return before + bytes(-len(before) % 512) + link.tobuf() + tar_of([("b.cls", b"1")])


CUT = tar_of([*pair("a"), *pair("b")])
ODD = {
    "cut off": (
        CUT[: CUT.index(b"b.jpg") + 700],
        1,
        "a.tar: it is cut off: b.jpg at byte ",
    ),
    "empty": (tar_of([]), 0, "a.tar: it holds no samples"),
    "no bytes": (b"", 0, "a.tar: it ends without the mark of a tar's end"),
    "no tar": (b"<html>" * 1000, 0, "a.tar: it is no tar\n"),
    "doubled": (tar_of([*pair("a"), *pair("b"), *pair("a")]), 3, "a.tar: 1 key comes twice, and each is used: a"),
    "strays": (
        tar_of([("README", b"x"), *pair("a")]),
        1,
        "a.tar: 1 member has no extension, or a name for webdataset alone: README",
    ),
    "two tars in one": (tar_of(pair("a")) + tar_of(pair("b")), 1, "bytes follow the end of the archive"),
}


@pytest.mark.parametrize("kind", ODD)
def test_each_odd_tar_is_said_in_a_line(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, count, said = ODD[kind]
    (tmp_path / "a.tar").write_bytes(data)
    write_tar(tmp_path / "b.tar", samples(2))
    damaged = pytest.raises(ShardfeedError, match=r"1 tar of 2 cannot be read to the end: a\.tar; the samples before")
    with damaged if kind in ("cut off", "no tar") else contextlib.nullcontext():
        indexed(tmp_path)
    assert len(open_dataset(tmp_path)["train"]) == count + 2
    assert said in capsys.readouterr().err
    assert any(path == "a.tar" for path, _ in rejects(tmp_path))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (linked(), "its jpg is a link"),
        (tar_of([*pair("a"), ("b.jpg", IMAGE)]), "it has no label (cls, json), only jpg"),
        (tar_of([*pair("a"), ("b.cls", b"1")]), "it has no image (jpg, jpeg, png, webp), only cls"),
        (tar_of([*pair("a"), *pair("b"), ("b.jpg", IMAGE)]), "it has two members jpg"),
        (tar_of([*pair("a"), ("b.jpg", b""), ("b.cls", b"1")]), "the file is empty (0 bytes)"),
        (tar_of([*pair("a"), ("b.jpg", IMAGE[:300]), ("b.cls", b"1")]), "JPEG: "),
    ],
)
def test_each_sample_of_no_use_is_a_reject(data: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(data)
    assert indexed(tmp_path)["train"].keys().tolist() == ["a"]
    (path, said), *others = rejects(tmp_path)
    assert path == "a.tar/b"
    assert reason in said
    assert not others


def test_a_sample_split_over_two_tars_is_two_rejects(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar_of([*pair("a"), ("b.jpg", IMAGE)]))
    (tmp_path / "b.tar").write_bytes(tar_of([("b.cls", b"1"), *pair("c")]))
    assert indexed(tmp_path)["train"].keys().tolist() == ["a", "c"]
    assert [path for path, _ in rejects(tmp_path)] == ["a.tar/b", "b.tar/b"]


def test_a_directory_of_compressed_tars_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(tar_of(pair("a"))))
    with pytest.raises(UsageError, match=r"holds compressed tars alone, such as a\.tar\.gz: decompress them"):
        index(Options(str(tmp_path), workers=1))


def test_a_source_without_a_sample_is_a_failure_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar_of([("a.jpg", IMAGE)]))
    with pytest.raises(ShardfeedError, match=r"no tar of .* holds a sample: a: it has no label"):
        index(Options(str(tmp_path), workers=1))
    assert not (tmp_path / MANIFEST).exists()


def test_a_stopped_run_goes_on_and_ends_as_one_that_was_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        write_tar(tmp_path / "a" / f"{number}.tar", samples(3, 10 * number))
    read: list[int] = []
    scanned = TarJob._scanned

    def stopping(self: TarJob, task: tuple[str, int], *others: Any) -> Any:
        if len(read) == 2:
            raise KeyboardInterrupt
        read.append(task[1])
        return scanned(self, task, *others)

    monkeypatch.setattr(TarJob, "_scanned", stopping)
    with pytest.raises(KeyboardInterrupt):
        index(Options(str(tmp_path / "a"), workers=1))
    assert not (tmp_path / "a" / MANIFEST).exists()

    def counting(self: TarJob, task: tuple[str, int], *others: Any) -> Any:
        read.append(task[1])
        return scanned(self, task, *others)

    monkeypatch.setattr(TarJob, "_scanned", counting)
    first = indexed(tmp_path / "a")["train"]
    assert read == [0, 1, 2, 3]
    assert not (tmp_path / "a" / job_module.WORK).exists()
    again = indexed(tmp_path / "a", tmp_path / "again")["train"]
    assert again.manifest.fingerprint == first.manifest.fingerprint


def test_an_index_of_the_same_tars_by_the_same_rules_is_complete_already(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_tar(tmp_path / "a.tar", samples(2))
    (tmp_path / "names").write_text("\n".join("abcde"))
    read: list[int] = []
    scanned = TarJob._scanned

    def counting(self: TarJob, task: tuple[str, int], *others: Any) -> Any:
        read.append(task[1])
        return scanned(self, task, *others)

    monkeypatch.setattr(TarJob, "_scanned", counting)
    indexed(tmp_path)
    capsys.readouterr()
    indexed(tmp_path)
    assert capsys.readouterr().out.startswith(f"{tmp_path} is complete already: 2 samples in train\n")
    assert len(read) == 1
    assert not (tmp_path / job_module.WORK).exists()
    assert indexed(tmp_path, class_names=tmp_path / "names")["train"].class_names == tuple("abcde")
    os.utime(path, ns=(1, 1))
    indexed(tmp_path, class_names=tmp_path / "names")
    (tmp_path / "train" / "index.parquet").unlink()
    indexed(tmp_path, class_names=tmp_path / "names")
    assert len(read) == 4


@pytest.mark.parametrize("change", ["longer", "written", "gone"])
def test_tars_that_have_changed_are_said_when_the_index_is_opened(tmp_path: Path, change: str) -> None:
    path = write_tar(tmp_path / "a.tar", samples(2))
    indexed(tmp_path)
    if change == "longer":
        path.write_bytes(path.read_bytes() + bytes(512))
    elif change == "written":
        at = path.read_bytes().rindex(IMAGE) + 400
        path.write_bytes(path.read_bytes()[:at] + b"?" + path.read_bytes()[at + 1 :])
    else:
        path.unlink()
    with pytest.warns(UserWarning, match=r"1 tar of 1 has changed since .*a\.tar.*run `python -m shards index .*again"):
        open_dataset(tmp_path)


def test_a_copy_with_other_times_has_not_changed(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    write_tar(tmp_path / "a" / "a.tar", samples(2))
    (tmp_path / "a" / "empty.tar").write_bytes(tar_of([]))
    indexed(tmp_path / "a")
    for path in (tmp_path / "a").glob("*.tar"):
        os.utime(path, ns=(1, 1))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    open_dataset(tmp_path / "b")
    assert not [str(each.message) for each in recwarn if "changed" in str(each.message)]


@pytest.mark.parametrize(
    ("source", "to", "opened", "advice"),
    [
        ("a", None, "b", "b"),
        ("a", "to", "to", "{}/a --to to"),
        ("a/x-{0..0}.tar", None, "b/x-{0..0}.tar", "'{}/elsewhere/b/x-{{0..0}}.tar'"),
        ("a/x-{0..0}.tar", "to", "to", "'{}/a/x-{{0..0}}.tar' --to to"),
        ("a/x-{0..0}.tar", "a", "b", "'b/x-{{0..0}}.tar' --to b"),
    ],
)
def test_advice_names_the_place_that_was_opened(
    source: str, to: str | None, opened: str, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_tar(Path("a/x-0.tar"), samples(1))
    indexed(source, None if to is None else Path(to))
    if opened.startswith("b"):
        Path("a").rename("b")
    here = tmp_path / "elsewhere"  # paths of the time of indexing mean nothing here
    here.mkdir()
    if opened == "to":
        Path("to").rename(here / "to")
    else:
        Path("b").rename(here / "b")
    for tar in tmp_path.rglob("*.tar"):
        with tar.open("ab") as file:
            file.write(b"\0")
    monkeypatch.chdir(here)
    command = f"`python -m shards index {advice.format(tmp_path)}`"
    with pytest.warns(UserWarning, match=re.escape(f"run {command} again")):
        split = open_dataset(opened)["train"]
    assert split.how_to_mend() == f"{command} indexes the tars anew"


def test_an_index_of_another_manifest_is_made_again(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", samples(2))
    indexed(tmp_path)
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    manifest["splits"]["train"]["index"]["sha256"] = "0" * 64
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(ShardfeedError, match=rf"its SHA-256 differs.*; run `python -m shards index {tmp_path}` again"):
        _ = open_dataset(tmp_path)["train"].index


def test_a_changed_image_is_found_by_verify(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", samples(3))
    split = indexed(tmp_path)["train"]
    data = bytearray(path.read_bytes())
    data[int(split.index.offset[1]) + 300] ^= 1
    path.write_bytes(data)
    (problem,) = verify(tmp_path).problems
    assert "sample 0001" in str(problem)
    assert "CRC-32" in str(problem)


def test_a_source_that_is_not_indexed_names_the_command(tmp_path: Path) -> None:
    write_tar(tmp_path / "a-0.tar", samples(1))
    for source in (tmp_path, tmp_path / "a-{0..3}.tar", "s3://bucket/a-{0..3}.tar"):
        with pytest.raises(UsageError, match=r"is not indexed yet: run `python -m shards index '.*'` once"):
            open_dataset(source)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("nowhere", "neither a directory nor a pattern"),
        (".", "holds no tars"),
        ("a-{0..2}.tar", "3 of 3 tars are missing"),
        ("a-{0..2.tar", "cannot be expanded"),
        ("{0..1000}.tar", "more than 1,000 tars"),
        ("{a,b}{0..999}.tar", "more than 1,000 tars"),
        ("{0..99999999999}.tar", "more than 1,000 tars"),
        ("s3://b/a.tar::https://c/b.tar", "must lie in one store"),
        ("a.tar::a.tar", "names 1 tar twice"),
    ],
)
def test_mistakes_in_a_source_are_one_line(
    source: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("shards.indexed.source.MOST_TARS", 1000)
    assert run_commands("python -m shards", COMMANDS, ["index", source]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_a_finished_data_set_of_ours_needs_no_index(tmp_path: Path) -> None:
    write_split(tmp_path, [IMAGE], short_side=None)
    with pytest.raises(UsageError, match="is a data set already"):
        index(Options(str(tmp_path)))


def test_a_task_can_run_in_another_process(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", samples(2))
    source = open_source(tmp_path)
    job = TarJob.of(source, Rules(), tmp_path / "work")
    assert pickle.loads(pickle.dumps(job)).run(("train", 0), lambda *_: None).samples == 2


def test_a_split_of_a_conversion_is_no_directory_of_tars(tmp_path: Path) -> None:
    split = write_split(tmp_path, [IMAGE], short_side=40, classes=1, name="train")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match=r"train is one split of the data set in .+, which needs no index: use that"):
        index(Options(str(split.root / "train")))
    assert sorted(tmp_path.rglob("*")) == before
