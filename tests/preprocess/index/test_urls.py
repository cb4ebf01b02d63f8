"""Tars behind URLs: their index is made of headers, lies in the cache, and gives the batches of the tars themselves."""

import functools
import http.server
import json
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from preprocess.index.job import index
from preprocess.index.options import Options
from shards import Loader
from shards.common.errors import ShardfeedError, UsageError
from shards.dataset import Split, open_dataset
from shards.format.layout import MANIFEST
from shards.remote.cache import Cache
from tests.conftest import jpeg, photo
from tests.helpers.pictures import exif, picture, saved
from tests.helpers.s3 import S3
from tests.helpers.tars import indexed, write_tar

pytest_plugins = ("tests.helpers.s3_server",)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def tars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three tars of four samples: plain JPEGs, two with long headers, a WebP, a turned one."""
    root = tmp_path_factory.mktemp("tars")
    images = [jpeg(photo(40, 41 + i, i)) for i in range(8)]
    images += [saved(Image.fromarray(photo(60, 50, i)), "JPEG", icc_profile=b"x" * 60_000) for i in range(2)]
    images += [saved(Image.fromarray(photo(44, 50)), "WEBP"), saved(picture().resize((60, 44)), "JPEG", exif=exif(6))]
    rows = [{"__key__": f"{i:03d}", "webp" if i == 10 else "jpg": data, "cls": i} for i, data in enumerate(images)]
    for number in range(3):
        write_tar(root / f"x-train-{number}.tar", rows[4 * number : 4 * number + 4])
    return root


def batches(split: Split, train: bool = True) -> list[tuple[torch.Tensor, torch.Tensor]]:
    with (
        warnings.catch_warnings(),
        Loader(split, batch_size=4, train=train, size=32, resize=40, threads=1, dtype="uint8") as loader,
    ):
        warnings.simplefilter("ignore")  # of caches that hold too little
        return [(images.clone(), labels.clone()) for images, labels in loader]


def same(first: Any, second: Any) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(first, second, strict=True)
    )


@pytest.fixture(scope="module")
def local(tars: Path, tmp_path_factory: pytest.TempPathFactory) -> Split:
    return indexed(tars, tmp_path_factory.mktemp("local"))["train"]


@pytest.mark.parametrize("share", [1.0, 0.01], ids=["shards are cached", "by ranges"])
def test_batches_are_those_of_the_tars_on_this_machine(
    s3: S3, tars: Path, local: Split, tmp_path: Path, share: float
) -> None:
    url = f"{s3.upload(tars)}/x-train-{{0..2}}.tar"
    indexed(url)
    cache = Cache(tmp_path / "cache", max(1, int(share * 10**6)))
    split = open_dataset(url, cache)["train"]
    assert split.keys().tolist() == local.keys().tolist()
    assert split.shard_place(0) == f"{s3.url}/data/x-train-0.tar"
    assert same(batches(split), batches(local))
    assert same(batches(split, train=False), batches(local, train=False))
    assert (cache.used() > 0) == (share == 1.0)


def test_a_directory_behind_a_url_is_indexed_in_the_cache(s3: S3, tars: Path, tmp_path: Path) -> None:
    url = s3.upload(tars)
    with pytest.raises(UsageError, match=f"tars of others are indexed first: `python -m shards index {url}`"):
        open_dataset(url)
    split = indexed(f"{url}/")["train"]
    assert len(split) == 12
    assert not split.info.checksums
    assert tmp_path in split.root.parents
    assert not [each for each in s3.requests if each.method == "GET" and each.path.endswith(".tar") and not each.range]


def test_a_tar_that_has_changed_in_its_store_is_an_error_that_says_so(s3: S3, tars: Path, tmp_path: Path) -> None:
    url = f"{s3.upload(tars)}/x-train-{{0..2}}.tar"
    split = indexed(url)["train"]
    for number in range(3):
        s3.put(f"data/x-train-{number}.tar", (tars / f"x-train-{number}.tar").read_bytes() + bytes(512))
    with pytest.raises(ShardfeedError, match=r"has [0-9,]+ bytes, its index says [0-9,]+: it has changed"):
        batches(split)


def test_an_index_uploaded_with_its_tars_is_opened_by_its_url(s3: S3, tars: Path, local: Split, tmp_path: Path) -> None:
    for each in tars.iterdir():
        (tmp_path / "up").mkdir(exist_ok=True)
        (tmp_path / "up" / each.name).write_bytes(each.read_bytes())
    indexed(tmp_path / "up")
    split = open_dataset(s3.upload(tmp_path / "up", "uploaded"))["train"]
    assert split.info.checksums
    assert same(batches(split), batches(local))


@pytest.mark.parametrize("place", ["/etc/passwd", "http://127.0.0.1:1/a.tar", "../a.tar"])
def test_a_strangers_manifest_names_no_place_outside(s3: S3, tars: Path, tmp_path: Path, place: str) -> None:
    indexed(tars, tmp_path / "to")
    manifest = json.loads((tmp_path / "to" / MANIFEST).read_text())
    manifest["splits"]["train"]["shards"][0]["place"] = place
    s3.put(f"bad/{MANIFEST}", json.dumps(manifest).encode())
    with pytest.raises(UsageError, match=r"splits\.train\.shards\[0\] lies in .*, outside of the data set"):
        open_dataset(f"{s3.url}/bad")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def web(tars: Path) -> Iterator[str]:
    handler = functools.partial(Quiet, directory=str(tars))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("source", ["", "/x-train-{0..2}.tar"])
def test_a_web_server_without_ranges_sends_each_tar_once(web: str, local: Split, tmp_path: Path, source: str) -> None:
    pytest.importorskip("aiohttp", reason="needs the extra http")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        split = indexed(f"{web}{source}")["train"]
        assert same(batches(split), batches(local))


def test_the_index_of_a_url_is_not_written_to_a_url() -> None:
    with pytest.raises(UsageError, match="the index is written on this machine"):
        index(Options("s3://bucket/a.tar", to="s3://bucket/b"))
