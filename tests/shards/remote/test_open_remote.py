"""Opening data sets behind URLs: what becomes of their manifests and indices, and of the cache."""

import errno
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from shards.common.errors import ShardfeedError, UsageError
from shards.dataset import Split, choose_split, open_dataset
from shards.format.index import Index
from shards.format.layout import INDEX
from shards.remote.cache import Cache
from shards.remote.object_store import ObjectStore
from tests.helpers.s3 import S3, first

pytest_plugins = ("tests.helpers.s3_server",)


@pytest.fixture
def url(s3: S3, small_split: Split) -> str:
    return s3.upload(small_split.root)


def opened(url: str, cache: Cache) -> Split:
    return open_dataset(url, cache)["train"]


def test_errors_while_the_data_set_is_opened_are_tried_again(
    s3: S3, url: str, small_split: Split, tmp_path: Path
) -> None:
    s3.fault = first(2, "error", suffix="")
    assert np.array_equal(opened(url, Cache(tmp_path / "cache")).index.crc32, small_split.index.crc32)


@pytest.mark.parametrize("place", ["/proc/nowhere", "file/below"])
def test_a_cache_that_cannot_be_written_is_named_with_its_option(
    s3: S3, url: str, small_split: Split, tmp_path: Path, place: str
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ShardfeedError, match=rf"the cache in .*{place} cannot be written: .* \(.*Cache.directory."):
        open_dataset(url, Cache(tmp_path / place))


def test_a_full_disk_is_said_when_the_index_is_kept(
    s3: S3, url: str, small_split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = opened(url, Cache(tmp_path / "cache"))

    def full(_: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("shards.dataset.split.replacing", full)
    with pytest.raises(ShardfeedError, match=r"cannot be written: No space left on device \(.*Cache.directory."):
        _ = split.index


def test_an_index_that_arrives_wrong_is_fetched_again(s3: S3, url: str, small_split: Split, tmp_path: Path) -> None:
    s3.fault = first(2, "wrong", suffix="index.parquet")
    assert np.array_equal(opened(url, Cache(tmp_path / "cache")).index.crc32, small_split.index.crc32)
    assert len(s3.gets("index.parquet")) == 3


def test_an_index_of_another_version_of_the_data_set_is_an_error_that_names_it(
    s3: S3, url: str, small_split: Split, tmp_path: Path
) -> None:
    other = tmp_path / "other.parquet"
    index = Index.read(small_split.root / "train" / INDEX, keys=True)
    replace(index, label=index.label[::-1].copy()).write(other)
    ObjectStore(url).put(other, f"train/{INDEX}")
    split = opened(url, Cache(tmp_path / "cache"))
    with pytest.raises(ShardfeedError, match=f"{url}/train/index.parquet arrives with other bytes than its manifest"):
        _ = split.index
    assert not list((tmp_path / "cache").rglob(INDEX))


def test_a_manifest_that_says_nothing_of_the_index_is_read(s3: S3, small_split: Split, tmp_path: Path) -> None:
    root = Path(shutil.copytree(small_split.root, tmp_path / "old"))
    replace(small_split.manifest, splits={"train": replace(small_split.info, index=None)}).write(root)
    split = opened(s3.upload(root, "old"), Cache(tmp_path / "cache"))
    assert np.array_equal(split.index.crc32, small_split.index.crc32)


def test_what_is_no_data_set(s3: S3, url: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"{s3.url}/elsewhere holds no manifest.json"):
        open_dataset(f"{s3.url}/elsewhere", Cache(tmp_path))
    with pytest.raises(UsageError, match="has no split x: it has train"):
        choose_split(url, ["x"], Cache(tmp_path))


def test_a_remote_split_has_places_and_no_paths(url: str, small_split: Split, tmp_path: Path) -> None:
    split = opened(url, Cache(tmp_path / "cache"))
    assert split.shard_place(3) == f"{url}/train/train-00003.tar"
    assert small_split.shard_place(3) == str(small_split.shard_paths[3])
    with pytest.raises(UsageError, match="is not on this machine"):
        _ = split.shard_paths
    assert list(split.keys()) == list(small_split.keys())


@pytest.mark.parametrize(
    "place", ["s3:/bucket/data", "s3:bucket", "s3://", "S3:///data", "hf:/datasets/me", "https:/a"]
)
def test_what_is_nearly_a_url_is_no_directory(place: str) -> None:
    with pytest.raises(UsageError, match=r"is not a URL: write [a-z0-9]+://BUCKET/PATH"):
        open_dataset(place)


def test_a_damaged_manifest_is_named_by_its_url_and_not_kept(
    s3: S3, url: str, small_split: Split, tmp_path: Path
) -> None:
    s3.put("data/manifest.json", (small_split.root / "manifest.json").read_bytes()[:-100])
    with pytest.raises(UsageError, match=rf"^{url}/manifest.json is damaged \(.*\): copy it again"):
        opened(url, Cache(tmp_path / "cache"))
    assert not list((tmp_path / "cache").rglob("manifest.json"))


def test_a_manifest_cannot_name_files_of_this_machine(s3: S3, url: str, small_split: Split, tmp_path: Path) -> None:
    precious = tmp_path / "precious.tar"
    precious.write_bytes(b"...")
    content = json.loads((small_split.root / "manifest.json").read_text())
    content["splits"]["train"]["shards"][0]["sha256"] = str(precious.with_suffix(""))
    s3.put("data/manifest.json", json.dumps(content).encode())
    with pytest.raises(UsageError, match=r"manifest.json is damaged \(splits\[...\].shards\[0\].sha256: expected str"):
        opened(url, Cache(tmp_path / "cache"))
    assert precious.read_bytes() == b"..."


def test_a_cache_directory_that_holds_other_files_is_refused(s3: S3, url: str, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UsageError, match=r"is no cache: it holds thesis.tex; .*Cache.directory."):
        opened(url, Cache(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_web_page_in_place_of_a_manifest_is_called_one(s3: S3, url: str, tmp_path: Path) -> None:
    s3.put("data/manifest.json", b"\n<!DOCTYPE html><html><body>Please log in</body></html>")
    with pytest.raises(UsageError, match=rf"^{url}/manifest.json is a web page and not a manifest"):
        opened(url, Cache(tmp_path / "cache"))
