"""`--repair`: files of a finished data set that were damaged or lost come back byte for byte, or not at all."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from preprocess.__main__ import main
from shards.format.index import Index
from shards.format.manifest import Manifest, index_info
from shards.format.verify import verify
from tests.conftest import jpeg, photo
from tests.helpers.jobs import BROKEN, convert, count_reads, folder, line, tree


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return folder(tmp_path / "source", {"train": 23, "validation": 5}, {"train/a/x.jpg": BROKEN, "train/b/y.jpg": b""})


@pytest.fixture
def out(source: Path, tmp_path: Path) -> Path:
    assert convert(source, tmp_path / "out", "--max-rejects", "0.5", "--seed", "3") == 0
    return tmp_path / "out"


def repair(source: Path, out: Path, *options: str) -> int:
    return main([str(source), str(out), "--repair", "--workers", "1", *options])


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-600])


@pytest.mark.parametrize("harm", [flip_a_bit, cut, Path.unlink])
@pytest.mark.parametrize(
    "name",
    [
        "train/train-00003.tar",
        "train/train-00000.idx",
        "validation/validation-00001.tar",
        "train/index.parquet",
        "train/rejects.jsonl",
    ],
)
def test_a_damaged_or_missing_file_comes_back(
    source: Path, out: Path, capsys: pytest.CaptureFixture[str], harm: Callable[[Path], object], name: str
) -> None:
    whole = tree(out)
    harm(out / name)
    capsys.readouterr()
    assert repair(source, out) == 0
    said = capsys.readouterr().out
    assert f"made again: {name if name.endswith(('.parquet', '.jsonl')) else name.split('/')[1]}" in said
    assert "now whole" in said
    assert tree(out) == whole


@pytest.mark.parametrize("harm", [cut, Path.unlink])
@pytest.mark.parametrize("name", ["train/train-00003.tar", "validation/index.parquet"])
@pytest.mark.parametrize("options", [(), ("--dry-run",)])
def test_a_conversion_repeated_on_a_damaged_data_set_names_the_repair(
    source: Path,
    out: Path,
    capsys: pytest.CaptureFixture[str],
    harm: Callable[[Path], object],
    name: str,
    options: tuple[str, ...],
) -> None:
    harm(out / name)
    capsys.readouterr()
    assert convert(source, out, "--max-rejects", "0.5", "--seed", "3", *options) == 1
    said = line(capsys)
    assert f"{out} was finished, but since then 1 file ({name}) went missing or changed" in said
    assert f"`python -m preprocess {source} {out} --repair`" in said


def other_bytes(path: Path) -> None:
    """What another version of the parquet library might make of the same table."""
    pq.write_table(pq.read_table(path), path, compression="none")


def test_an_index_of_another_parquet_library_stays_where_the_manifest_has_its_hash(source: Path, out: Path) -> None:
    other_bytes(out / "train" / "index.parquet")
    manifest = Manifest.read(out)
    info = replace(manifest.splits["train"], index=index_info(out / "train" / "index.parquet"))
    replace(manifest, splits={**manifest.splits, "train": info}).write(out)
    before = tree(out)
    assert repair(source, out) == 0
    assert tree(out) == before


def test_an_index_that_comes_out_with_other_bytes_takes_the_manifest_along(
    source: Path, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (out / "train" / "index.parquet").unlink()
    write = Index.write

    def differently(index: Index, path: Path) -> None:
        write(index, path)
        other_bytes(path)

    monkeypatch.setattr(Index, "write", differently)
    assert repair(source, out) == 0
    assert "written again for it: manifest.json" in capsys.readouterr().out
    assert verify(out).problems == ()
    assert repair(source, out) == 0
    assert "nothing is damaged or missing" in capsys.readouterr().out


def test_a_data_set_made_before_manifests_held_the_index_is_mended(source: Path, out: Path) -> None:
    manifest = Manifest.read(out)
    splits = {name: replace(info, index=None) for name, info in manifest.splits.items()}
    replace(manifest, splits=splits).write(out)
    whole = tree(out)
    flip_a_bit(out / "train" / "index.parquet")
    assert repair(source, out) == 0
    assert tree(out) == whole


def test_much_damage_at_once_comes_back(source: Path, out: Path) -> None:
    whole = tree(out)
    shutil.rmtree(out / "validation")
    for name in ("train-00000.tar", "train-00001.idx", "train-00004.tar", "index.parquet"):
        flip_a_bit(out / "train" / name)
    assert repair(source, out, "--workers", "2") == 0
    assert tree(out) == whole


def test_what_is_whole_is_left_alone_and_not_read_from_the_source(
    source: Path, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    read = count_reads(monkeypatch)
    assert repair(source, out) == 0
    assert "nothing is damaged or missing" in capsys.readouterr().out
    assert not read
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == before


def test_a_source_in_order_is_mended_in_order(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "ordered"
    convert(source, out, "--order", "source", "--max-rejects", "0.5")
    whole = tree(out)
    flip_a_bit(out / "train" / "train-00002.tar")
    assert repair(source, out) == 0
    assert tree(out) == whole


def test_another_source_is_refused(source: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = tree(out)
    (source / "train" / "a" / "000.jpg").write_bytes(jpeg(photo(9, 9)))
    capsys.readouterr()
    assert repair(source, out) == 2
    assert f"is not what {out} was made from" in line(capsys)
    assert tree(out) == before


def test_settings_that_contradict_the_manifest_are_refused(
    source: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert repair(source, out, "--short-side", "64") == 2
    assert "--short-side 16 there, 64 here" in line(capsys)
    assert repair(source, out, "--short-side", "16", "--shard-size", "4", "--seed", "3") == 0


@pytest.mark.parametrize(
    ("damaged", "pillow", "fault", "why"),
    [
        (False, None, "is as the source gives it, not as the manifest says", ". The manifest was changed: copy it"),
        (False, "1.0", "is as the source gives it, not as the manifest says", ". The manifest was changed: copy it"),
        (True, None, "comes out with other bytes", ". The manifest was changed: copy it again"),
        (True, "1.0", "comes out with other bytes", ". Other versions make other bytes; it was made with pillow 1.0,"),
    ],
)
def test_a_shard_that_comes_out_otherwise_is_named_with_what_is_to_blame_and_stays_as_it_is(
    damaged: bool, pillow: str | None, fault: str, why: str, source: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = json.loads((out / "manifest.json").read_text())
    manifest["splits"]["train"]["shards"][2]["sha256"] = "ab" * 32
    manifest["libraries"] |= {} if pillow is None else {"pillow": pillow}
    (out / "manifest.json").write_text(json.dumps(manifest))
    for number in (2, 4) if damaged else (4,):
        flip_a_bit(out / "train" / f"train-0000{number}.tar")
    before = tree(out)
    capsys.readouterr()
    assert repair(source, out) == 1
    said = line(capsys)
    assert f"train-00002.tar {fault}" in said
    assert "manifest abababab" in said
    assert why in said
    after = tree(out)
    assert {name for name in after if after[name] != before[name]} == {"train/train-00004.tar"}


@pytest.mark.parametrize("where", [".", "train"])
def test_a_file_that_verify_does_not_want_is_named_and_the_data_set_not_called_whole(
    where: str, source: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (out / where / "stray.tar").write_bytes(b"")
    problems = [str(problem) for problem in verify(out).problems]
    capsys.readouterr()
    assert repair(source, out) == 1
    said = line(capsys)
    assert problems[0] in said
    assert "Remove what should not be there" in said
    (out / where / "stray.tar").unlink()
    assert repair(source, out) == 0
    assert verify(out).problems == ()


def test_only_a_finished_data_set_is_repaired(source: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (out / "manifest.json").unlink()
    capsys.readouterr()
    assert repair(source, out) == 2
    assert "holds no manifest.json" in line(capsys)
