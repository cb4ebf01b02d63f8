"""The synthetic data set: rows that are pure functions, ImageNet's sizes and oddities, the parquet it is written as."""

import io
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageOps

from preprocess.sources import open_source
from preprocess.sources.source import Row
from preprocess.synthetic import SyntheticSource, parse, photograph, scene
from preprocess.synthetic.__main__ import main
from shards.common.errors import UsageError

COUNT = 160


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    source = SyntheticSource(train=COUNT)
    return [source.row("train", i) for i in range(COUNT)]


def _upright(data: bytes) -> npt.NDArray[np.float32]:
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"), np.float32)


def test_a_row_depends_on_seed_split_and_row_alone(rows: list[Row]) -> None:
    assert SyntheticSource(train=8, validation=1).row("train", 7) == rows[7]
    others = {SyntheticSource(seed=1).row("train", 7).data, SyntheticSource().row("validation", 7).data, rows[8].data}
    assert len(others | {rows[7].data}) == 4


def test_a_source_travels_to_worker_processes() -> None:
    source = SyntheticSource(train=3, seed=5)
    assert pickle.loads(pickle.dumps(source)) == source


def test_labels_are_balanced_and_not_in_order() -> None:
    source = SyntheticSource(train=300, classes=4)
    labels = [source.label("train", i) for i in range(300)]
    assert all(sorted(labels[i : i + 4]) == [0, 1, 2, 3] for i in range(0, 300, 4))
    assert len({tuple(labels[i : i + 4]) for i in range(0, 300, 4)}) > 10


def test_files_hold_every_oddity_that_a_converter_must_repair(rows: list[Row]) -> None:
    kinds: Counter[tuple[str | None, str, bool]] = Counter()
    for row in rows:
        image = Image.open(io.BytesIO(row.data))
        kinds[image.format, image.mode, photograph.ORIENTATION_TAG in image.getexif()] += 1
    assert set(kinds) == {
        ("JPEG", "RGB", False),
        ("JPEG", "RGB", True),
        ("JPEG", "L", False),
        ("JPEG", "CMYK", False),
        ("PNG", "RGB", False),
    }
    assert kinds["JPEG", "RGB", False] > 0.8 * COUNT
    assert all(row.path.endswith(".JPEG") for row in rows)


def test_sizes_are_like_imagenets(rows: list[Row]) -> None:
    sizes = np.array([Image.open(io.BytesIO(row.data)).size for row in rows])
    encoded = np.array([len(row.data) for row in rows])
    assert 420 < sizes[:, 0].mean() < 530
    assert 350 < sizes[:, 1].mean() < 460
    assert sizes.max(axis=1).min() < 250
    assert sizes.max() > 700
    # The real sample has 0.54 bytes a pixel, from 0.14 (5% of the images) to 1.1 (95%).
    assert 0.4 < encoded.sum() / sizes.prod(axis=1).sum() < 0.7


@pytest.mark.parametrize("share", ["ROTATED", "CMYK"])
def test_a_repaired_picture_is_the_one_that_was_drawn(
    share: str, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    def odd(row: Row) -> bool:
        image = Image.open(io.BytesIO(row.data))
        return image.mode == "CMYK" if share == "CMYK" else photograph.ORIENTATION_TAG in image.getexif()

    numbers = [i for i, row in enumerate(rows) if odd(row)]
    assert numbers
    monkeypatch.setattr(photograph, share, 0.0)
    for i in numbers:
        plain = SyntheticSource(train=COUNT).row("train", i)
        assert not odd(plain)
        assert np.abs(_upright(plain.data) - _upright(rows[i].data)).mean() < 8  # what two encodings differ by


@pytest.mark.parametrize("shape", scene.CLASS_NAMES)
def test_a_shape_is_brighter_than_its_surroundings_and_lies_within_the_picture(shape: str) -> None:
    side = 200
    reach = np.linspace(-scene.EXTENT, scene.EXTENT, side, dtype=np.float32)
    inside = scene.SHAPES[shape](reach[None, :] + 0 * reach[:, None], reach[:, None] + 0 * reach[None, :]) < 0
    assert 0.05 < inside.mean() < 0.5
    assert not np.concatenate([inside[0], inside[-1], inside[:, 0], inside[:, -1]]).any()
    planes = scene.draw(np.random.default_rng(0), shape, side, side, scene.Look(detail=10, noise=1))
    assert planes.shape == (3, side, side)
    brightest, ground = np.percentile(planes[0], [97, 20])
    assert brightest - ground > 60


def test_parse_reads_any_keys_and_names_the_source_in_full() -> None:
    assert parse("synthetic:") == SyntheticSource()
    source = parse("synthetic:classes=3,train=20")
    assert source == SyntheticSource(train=20, classes=3)
    assert source.name == "synthetic:train=20,validation=500,classes=3,seed=0"
    assert parse(source.name) == source
    assert source.class_names == ("disc", "ring", "square")


def test_fingerprints_tell_settings_apart() -> None:
    assert SyntheticSource().fingerprint == SyntheticSource().fingerprint
    assert len({parse(f"synthetic:{word}").fingerprint for word in ("", "train=1", "classes=2", "seed=1")}) == 4


@pytest.mark.parametrize(
    "name",
    [
        "synthetic:size=3",
        "synthetic:train",
        "synthetic:train=many",
        "synthetic:train=-1",
        "synthetic:train=0",
        "synthetic:train=1,train=2",
        "synthetic:classes=11",
        "synthetic:classes=1",
        "folder",
    ],
)
def test_parse_refuses_what_it_does_not_know(name: str) -> None:
    with pytest.raises(UsageError):
        parse(name)


def test_rows_and_splits_outside_are_refused() -> None:
    source = SyntheticSource(train=3)
    with pytest.raises(IndexError):
        source.row("train", 3)
    with pytest.raises(UsageError, match="no split 'test'"):
        source.num_rows("test")


def test_the_written_data_set_holds_the_sources_rows(tmp_path: Path, rows: list[Row]) -> None:
    out = tmp_path / "made"
    assert main([str(out), "--train", "105", "--validation", "2", "--workers", "2"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made"]
    table = pq.read_table(out / "data" / "train-00000-of-00001.parquet")
    assert table.column("image").to_pylist() == [{"bytes": row.data, "path": row.path} for row in rows[:105]]
    opened = open_source(str(out))
    assert tuple(opened.class_names) == scene.CLASS_NAMES
    assert set(opened.splits) == {"train", "validation"}
    assert opened.row("train", 104).data == rows[104].data
    assert opened.row("train", 104).label == rows[104].label


def test_writing_again_is_free_and_never_overwrites(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "made")
    small = ["--train", "3", "--validation", "1", "--workers", "1"]
    assert main([out, *small]) == 0
    assert main([out, *small]) == 0
    assert "already" in capsys.readouterr().out
    assert main([out, *small, "--seed", "1"]) == 2
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    assert main([str(tmp_path / "other"), *small]) == 2
    assert "holds something else" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["notes.txt"]


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(source: SyntheticSource, split: str, row: int) -> Row:
        raise OSError("disk full")

    monkeypatch.setattr(SyntheticSource, "row", fail)
    assert main([str(tmp_path / "made"), "--train", "3", "--workers", "1"]) == 1
    assert list(tmp_path.iterdir()) == []
