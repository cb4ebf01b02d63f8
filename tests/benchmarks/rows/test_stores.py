"""The data of the rows: copies of a source, and tars of others made of shards."""

import io
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from benchmarks.measure.settings import BatchSpec
from benchmarks.processes.task import PeerTask
from benchmarks.processes.web import served
from benchmarks.rows import stores
from benchmarks.rows.stores import Stores, multiply
from preprocess.sources import hf_dataset
from shards.common.errors import ShardfeedError
from shards.dataset import open_dataset
from tests.conftest import jpeg, photo

COLUMNS = ("image", "label")


@pytest.fixture
def source(tmp_path: Path) -> str:
    """Three images of two classes; libjpeg-turbo does not decode the last one by itself."""
    png = io.BytesIO()
    Image.fromarray(photo(40, 50, 2)).save(png, "PNG")
    images = [jpeg(photo(40, 50, 0)), jpeg(photo(40, 50, 1)), png.getvalue()]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    columns = {"image": [{"bytes": data, "path": None} for data in images], "label": [0, 1, 0]}
    datasets.DatasetDict({"train": datasets.Dataset.from_dict(columns, features=features)}).save_to_disk(
        tmp_path / "source"
    )
    return str(tmp_path / "source")


def _images(source: str | Path) -> list[bytes]:
    rows: Any = hf_dataset(str(source), "train").cast_column("image", datasets.Image(decode=False))
    return [row["image"]["bytes"] for row in rows]


def test_copies_differ_in_bytes_and_little_in_pixels(source: str, tmp_path: Path) -> None:
    multiply(source, "train", COLUMNS, tmp_path / "more", 7)
    images, given = _images(tmp_path / "more"), _images(source)
    assert images[:3] == given
    assert images[5] == given[2]  # as it is
    assert len({images[0], images[3], images[6]}) == 3
    pixels = np.asarray(Image.open(io.BytesIO(images[3])).convert("RGB"))
    assert all(side - 16 <= now <= side for now, side in zip(pixels.shape[:2], (40, 50), strict=True))
    assert abs(float(pixels.mean()) - photo(40, 50, 0).mean()) < 20
    assert hf_dataset(str(tmp_path / "more"), "train")["label"][:] == [0, 1, 0, 0, 1, 0, 0]
    multiply(source, "train", COLUMNS, tmp_path / "again", 7)
    assert _images(tmp_path / "again") == images


def test_a_disk_without_room_is_said_before_anything_is_written(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "ROOM", 10**15)
    with pytest.raises(ShardfeedError, match=r"measuring 9 images needs about .*give fewer --images"):
        multiply(source, "train", COLUMNS, tmp_path / "more", 9)
    assert not (tmp_path / "more").exists()


def test_pixels_are_stored_of_a_part_of_the_images(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_DATASETS_CACHE", raising=False)
    made = Stores(source, tmp_path, "train", COLUMNS, 8)
    counts = {store: len(_images(made.source(store)[0])) for store in ("jpeg", "raw", "small-raw")}
    assert counts == {"jpeg": 8, "raw": 2, "small-raw": 8}
    assert Stores(source, tmp_path, "train", COLUMNS, None).source("raw") == (source, *COLUMNS)


def test_tars_of_others_hold_the_images_and_class_names_of_the_shards(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.conftest import write_split

    original = write_split(tmp_path / "shards-original", [jpeg(photo(40, 50, 0))], short_side=40)
    made = Stores(source, tmp_path, "train", COLUMNS, None)
    split = open_dataset(made.shards("tars"))["train"]
    assert split.manifest.indexed
    assert (split.class_names, len(split)) == (original.class_names, 1)


def test_shards_behind_a_web_server_are_fetched_anew_for_each_turn(small_split: Any, tmp_path: Path) -> None:
    pytest.importorskip("aiohttp", reason="needs the extra http")
    with served(small_split.root) as url:
        task = PeerTask(url, "train", "", *COLUMNS, str(tmp_path), BatchSpec(), 1, reads="http")
        assert len(task.open_split()) == len(small_split)
        assert task.cache.exists()
        task.before_turn()
        assert not task.cache.exists()
