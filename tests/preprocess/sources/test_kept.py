"""Columns of a source that the index of the shards gets too: `--keep`."""

import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from preprocess.__main__ import main
from preprocess.sources import open_source
from shards.common.errors import UsageError
from shards.dataset import open_dataset
from shards.format.index import DTYPES
from shards.format.manifest import Manifest
from shards.format.verify import verify
from tests.conftest import jpeg, photo
from tests.helpers import imagenet
from tests.helpers.jobs import BROKEN, convert, folder, interrupt_at, line, tree, write_files

ROWS = 9
KEPT = ("number", "word", "path", "class")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of parquet with columns of several types; row 4 is a broken image."""
    root = tmp_path_factory.mktemp("table")
    images = [BROKEN if row == 4 else jpeg(photo(20, 24, seed=row)) for row in range(ROWS)]
    columns = {
        "image": [{"bytes": data, "path": f"{row}.jpg"} for row, data in enumerate(images)],
        "label": [row % 2 for row in range(ROWS)],
        "number": pa.array([row * 10 for row in range(ROWS)], pa.int16()),
        "word": pa.array([f"w{row}" for row in range(ROWS)], pa.large_string()),
        "share": [0.5] * ROWS,
        "some": ["a"] * 8 + [None],
        "huge": pa.array([2**63] * ROWS, pa.uint64()),
    }
    pq.write_table(pa.table(columns), root / "train-0.parquet")
    return root


def kept(source: Path | str, out: Path, *columns: str, more: tuple[str, ...] = ()) -> int:
    """Converts, and keeps columns."""
    words = [word for column in columns for word in ("--keep", column)]
    return convert(source, out, "--max-rejects", "0.5", *words, *more)


@pytest.fixture(scope="module")
def whole(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A conversion of `table` with the columns KEPT."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert kept(table, out, *KEPT) == 0
    return out


def test_columns_stand_beside_their_samples(whole: Path) -> None:
    split = open_dataset(whole)["train"]
    rows = split.keys().astype(np.int64)
    assert sorted(rows) == [row for row in range(ROWS) if row != 4]
    assert split.column("number").tolist() == [row * 10 for row in rows]
    assert split.column("word").tolist() == [f"w{row}" for row in rows]
    assert split.column("path").tolist() == [f"{row}.jpg" for row in rows]
    assert split.column("class").tolist() == [str(row % 2) for row in rows]
    assert split.column("label").tolist() == (rows % 2).tolist()
    assert split.column("key").tolist() == split.keys().tolist()
    assert Manifest.read(whole).columns == {"number": "int64", "word": "string", "path": "string", "class": "string"}
    assert not verify(whole).problems


def test_a_part_of_a_split_has_its_rows(whole: Path) -> None:
    rest, held = open_dataset(whole)["train"].hold_out(0.5)
    for part in (rest, held):
        assert part.column("number").tolist() == (part.keys().astype(int) * 10).tolist()


def test_without_columns_every_byte_is_as_before(table: Path, whole: Path, tmp_path: Path) -> None:
    assert kept(table, tmp_path / "plain") == 0
    plain, more = tree(tmp_path / "plain"), tree(whole)
    assert b"columns" not in plain["manifest.json"]
    assert pq.read_schema(tmp_path / "plain/train/index.parquet").names == [*DTYPES, "key"]
    differing = {name for name in plain if plain[name] != more[name]}
    assert differing == {"manifest.json", "train/index.parquet"}


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("label", "--keep label: the index has a column of that name already"),
        ("nothing", "has no column nothing: it has image, label, number, word, share, some, huge; .* --keep"),
        ("share", "column share in split train of .* holds double, and only strings or integers can be kept"),
        ("some", "column some in split train of .* has no value in 1 of 9 rows, such as row 8"),
        ("huge", r"column huge in split train of .* holds a number above 2\^63"),
    ],
)
def test_a_column_that_cannot_be_kept_is_one_line(
    table: Path, tmp_path: Path, column: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert kept(table, tmp_path / "out", column) == 2
    assert re.search(message, line(capsys))
    assert not (tmp_path / "out").exists()


def test_a_stopped_job_goes_on_with_its_columns(
    table: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        interrupt_at(patch, 7)
        assert kept(table, tmp_path / "out", *KEPT) == 1
    capsys.readouterr()
    assert kept(table, tmp_path / "out") == 2
    assert "--keep number word path class there, none here" in line(capsys)
    assert kept(table, tmp_path / "out", *KEPT) == 0
    assert tree(tmp_path / "out") == tree(whole)


def test_repair_makes_columns_again(
    table: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    (out / "train" / "train-00001.tar").write_bytes(b"")
    (out / "train" / "index.parquet").unlink()
    assert main([str(table), str(out), "--repair", "--workers", "1"]) == 0
    assert tree(out) == tree(whole)
    capsys.readouterr()
    assert main([str(table), str(out), "--repair", "--keep", "number"]) == 2
    assert "keeps number, word, path, class: leave out --keep" in line(capsys)


def test_another_value_is_another_source(table: Path, tmp_path: Path) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(table, changed)
    rows = pq.read_table(changed / "train-0.parquet")
    words = pa.array(["other"] * ROWS)
    pq.write_table(rows.set_column(rows.column_names.index("word"), "word", words), changed / "train-0.parquet")
    assert open_source(str(table)).fingerprint == open_source(str(changed)).fingerprint
    assert open_source(str(table), keep=["word"]).fingerprint != open_source(str(changed), keep=["word"]).fingerprint


def test_folders_have_paths_and_classes_and_no_more(tmp_path: Path) -> None:
    source = folder(tmp_path / "source", {"train": 3, "val": 2})
    assert kept(source, tmp_path / "out", "path", "class") == 0
    split = open_dataset(tmp_path / "out")["val"]
    assert sorted(split.column("path")) == ["val/a/000.jpg", "val/b/001.jpg"]
    assert split.column("class").tolist() == [split.class_names[label] for label in split.labels]
    with pytest.raises(UsageError, match="has no column word: it has path and class"):
        open_source(str(source), keep=["word"])


def test_the_class_of_a_named_class_is_its_wnid(tmp_path: Path) -> None:
    source = open_source(str(imagenet.tiny(tmp_path)), keep=["class"])
    assert source.columns("train", [0, 8])["class"].to_pylist() == ["n01440764", "n03000684"]


def test_json_files_have_columns(tmp_path: Path) -> None:
    root = imagenet.webdataset_tars(tmp_path)
    source = open_source(str(root), keep=["filename", "number"])
    assert source.columns("validation", [3])["filename"].to_pylist() == ["ILSVRC2012_val_00000004.JPEG"]
    assert source.columns("train", [8])["number"].to_pylist() == [102]
    with pytest.raises(UsageError, match=r"column nothing in split train of .* has no value in 9 of 9 rows"):
        open_source(str(root), keep=["nothing"])


def test_a_name_that_is_no_utf_8_is_kept_as_it_is_printed(tmp_path: Path) -> None:
    image = jpeg(photo(20, 20))
    source = write_files(tmp_path / "s", {"train/a/x\udcff.jpg": image, "train/b/\n.jpg": image})
    assert kept(source, tmp_path / "out", "path") == 0
    assert sorted(open_dataset(tmp_path / "out")["train"].column("path")) == [r"train/a/x\xff.jpg", "train/b/\n.jpg"]


def test_a_column_that_is_not_there_names_those_that_are(whole: Path) -> None:
    with pytest.raises(UsageError, match=r"the index of train has no column 'share': it has shard, .*, key, number,"):
        open_dataset(whole)["train"].column("share")


def test_synthetic_images_have_no_columns() -> None:
    with pytest.raises(UsageError, match="leave out --val-labels and --keep"):
        open_source("synthetic:train=4", keep=["path"])
