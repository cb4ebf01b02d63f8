"""Directories of parquet: where the files are found, what they may hold, and the cache of what they held before."""

import os
from collections import namedtuple
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from preprocess.sources import open_source
from preprocess.sources.tables import open_tables
from shards.common.errors import ShardfeedError, UsageError
from tests.conftest import jpeg, photo

datasets = pytest.importorskip("datasets")

IMAGES = [jpeg(photo(12 + i, 16, seed=i)) for i in range(3)]
PATHS = ["a.jpg", "b.jpg", "c.jpg"]


def write(path: Path, images: pa.Array | None = None, labels: list[int] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    images = pa.array(IMAGES) if images is None else images
    pq.write_table(pa.table({"image": images, "label": [0, 1, 0] if labels is None else labels}), path)
    return path


def labels(root: Path) -> list[int]:
    source = open_source(str(root))
    return [source.row("train", row).label for row in range(source.num_rows("train"))]


def test_a_file_rewritten_with_its_old_time_is_read_anew(tmp_path: Path) -> None:
    path = write(tmp_path / "train-0.parquet", labels=[0, 1, 0])
    status = path.stat()
    assert labels(tmp_path) == [0, 1, 0]
    # Of the same length and with the same statistics, so that even the footer is the same.
    write(path, labels=[1, 0, 0])
    assert path.stat().st_size == status.st_size
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert labels(tmp_path) == [1, 0, 0]


def test_what_has_not_changed_is_converted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "train-0.parquet")
    assert labels(tmp_path) == [0, 1, 0]
    monkeypatch.setattr(datasets.DatasetBuilder, "_download_and_prepare", None)
    assert labels(tmp_path) == [0, 1, 0]


def test_too_little_room_for_the_arrow_files_is_said_and_none_is_needed_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "train-0.parquet")
    usage = namedtuple("usage", "total used free")
    free = [100]
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(10**12, 0, free[0]))
    with pytest.raises(ShardfeedError, match=r" as Arrow files needs about .* 100 B are free there: .*HF_HOME"):
        labels(tmp_path)
    free[0] = 10**9
    assert labels(tmp_path) == [0, 1, 0]
    free[0] = 100
    assert labels(tmp_path) == [0, 1, 0]


def struct(images: pa.DataType, paths: pa.DataType | None) -> pa.Array:
    fields = [("bytes", images)] if paths is None else [("path", paths), ("bytes", images)]
    named = [None] * 3 if paths == pa.null() else PATHS
    return pa.array(
        [{"bytes": data, "path": path} for data, path in zip(IMAGES, named, strict=True)], pa.struct(fields)
    )


@pytest.mark.parametrize(
    "images",
    [
        pa.array(IMAGES, pa.large_binary()),
        struct(pa.binary(), pa.string()),
        struct(pa.large_binary(), pa.large_string()),
        struct(pa.binary(), pa.null()),
        struct(pa.binary(), None),
    ],
    ids=str,
)
def test_images_of_other_types(tmp_path: Path, images: pa.Array) -> None:
    write(tmp_path / "train-0.parquet", images)
    source = open_source(str(tmp_path))
    assert [source.row("train", row).data for row in range(3)] == IMAGES
    assert source.row("train", 1).path in ("b.jpg", "train row 1")


def test_structs_of_something_else_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "train-0.parquet", pa.array([{"bytes": 3, "path": "a"}] * 3))
    with pytest.raises(UsageError, match=r"not images; none of them seems to fit; name the right one with --image-col"):
        open_source(str(tmp_path))


def test_a_wrong_column_is_answered_with_the_option_to_give(tmp_path: Path) -> None:
    columns = {"img": pa.array(IMAGES), "size": pa.array([0.1, 0.2, 0.3]), "fine label": pa.array([0, 1, 2])}
    pq.write_table(pa.table(columns), tmp_path / "train-0.parquet")
    for given, said in {
        ("image", "label"): "has no column image: it has img, size, fine label; give --image-column img",
        ("size", "fine label"): "holds Value.*, not images; give --image-column img",
        ("img", "label"): "has no column label: it has .*; give --label-column 'fine label'",
        ("img", "size"): "holds double, not labels; give --label-column 'fine label'",
    }.items():
        with pytest.raises(UsageError, match=said):
            open_tables(str(tmp_path), tmp_path, None, *given)


def test_files_and_splits_without_rows_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "train-0.parquet")
    write(tmp_path / "train-1.parquet", pa.array([], pa.binary()), [])
    write(tmp_path / "test-0.parquet", pa.array([], pa.binary()), [])
    source = open_source(str(tmp_path))
    assert (source.splits, source.num_rows("train")) == (("train",), 3)
    assert "leaving out split test: it has no rows" in capsys.readouterr().err
    (tmp_path / "train-0.parquet").unlink()
    with pytest.raises(UsageError, match="its parquet files have no rows"):
        open_source(str(tmp_path))


def test_files_in_the_folder_of_a_configuration_are_found(tmp_path: Path) -> None:
    write(tmp_path / "plain_text" / "train-0.parquet")
    assert labels(tmp_path) == [0, 1, 0]
    write(tmp_path / "other" / "train-0.parquet")
    with pytest.raises(UsageError, match=r"in several folders \(other, plain_text\): give one of these folders"):
        open_source(str(tmp_path))
    assert labels(tmp_path / "other") == [0, 1, 0]
