"""Data sets behind URLs, from a real S3 server on loopback whose answers are slow, wrong, cut off or errors."""

import errno
import functools
import http.server
import os
import shutil
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from fsspec.callbacks import NoOpCallback

from shards.common.errors import Cancelled, MissingDependency, ShardfeedError, UsageError
from shards.common.redact import without_secrets
from shards.dataset import Split, choose_split, open_dataset
from shards.format.index import Index
from shards.format.layout import INDEX
from shards.remote.cache import Cache
from shards.remote.object_store import ObjectStore, _until, is_url
from shards.remote.prefetch import Prefetcher
from shards.remote.shards import RemoteShards
from shards.sampling.order import Share, epoch_order, upcoming
from tests.conftest import jpeg, photo, write_split
from tests.helpers.s3 import ACCESS, S3, SECRET, first

pytest_plugins = ("tests.helpers.s3_server",)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Split:
    """32 shards of three small images."""
    images = [jpeg(photo(16, 16 + i % 5, seed=i)) for i in range(96)]
    return write_split(tmp_path_factory.mktemp("local"), images, short_side=16, shard_size=3)


@pytest.fixture
def url(s3: S3, local: Split) -> str:
    return s3.upload(local.root)


WINDOW = 4  # shards of a block, so that a quarter of 32 holds two blocks


def cache(tmp_path: Path, share: float, split: Split) -> Cache:
    return Cache(tmp_path / "cache", int(split.info.bytes * share) + 1)


def opened(url: str, cache: Cache) -> Split:
    return open_dataset(url, cache)["train"]


def read(shards: Prefetcher, split: Split, sample: int) -> bytes:
    """One sample as the loader reads it."""
    buffer = np.empty(split.index.size[sample], np.uint8)
    done = 0
    while done < len(buffer):
        count = shards.preadv(
            int(split.index.shard[sample]), [buffer[done:].data], int(split.index.offset[sample]) + done
        )
        assert count
        done += count
    return buffer.tobytes()


def expected(split: Split, sample: int) -> bytes:
    with split.shard_paths[int(split.index.shard[sample])].open("rb") as file:
        file.seek(int(split.index.offset[sample]))
        return file.read(int(split.index.size[sample]))


def read_epoch(shards: Prefetcher, split: Split, order: Any, epoch: int, local: Split, share: Share) -> None:
    """Reads and compares one epoch, announcing what comes as the loader does."""
    ids = epoch_order(split.index.shard, order, 0, epoch, WINDOW)
    horizon = len(ids) if order == "global" else 2 * WINDOW * 3
    block = -1
    for position in range(share.rank, len(ids), share.world_size):
        if position // (WINDOW * 3) != block:
            block = position // (WINDOW * 3)
            shards.announce(upcoming(split.index.shard, ids, share, block * WINDOW * 3, horizon))
        assert read(shards, split, ids[position]) == expected(local, ids[position])


@pytest.mark.parametrize("order", ["global", "blocks", "index"])
def test_an_epoch_is_the_same_and_the_next_one_makes_no_request(
    s3: S3, url: str, local: Split, tmp_path: Path, order: str
) -> None:
    split = opened(url, cache(tmp_path, 1, local))
    shards = Prefetcher(split.remote_shards())
    read_epoch(shards, split, order, 0, local, Share(1))
    assert sorted(s3.gets()) == sorted(shard.name for shard in split.info.shards)
    s3.requests.clear()
    read_epoch(shards, split, order, 1, local, Share(1))
    assert s3.requests == []
    shards.close()


def test_a_second_run_asks_for_the_manifest_only(s3: S3, url: str, local: Split, tmp_path: Path) -> None:
    for _ in range(2):
        s3.requests.clear()
        split = opened(url, cache(tmp_path, 1, local))
        shards = Prefetcher(split.remote_shards())
        read_epoch(shards, split, "blocks", 0, local, Share(1))
        shards.close()
    assert {request.path.rpartition("/")[2] for request in s3.requests} == {"manifest.json"}


def test_a_quarter_of_the_data_set_in_the_cache_fetches_each_shard_once_an_epoch(
    s3: S3, url: str, local: Split, tmp_path: Path
) -> None:
    place = cache(tmp_path, 0.25, local)
    split = opened(url, place)
    shards = Prefetcher(split.remote_shards())
    for epoch in range(3):
        s3.requests.clear()
        read_epoch(shards, split, "blocks", epoch, local, Share(1))
        gets = s3.gets()
        assert len(gets) <= 1.1 * len(split.info.shards)
        assert place.used() <= place.bytes
    assert len(gets) > len(split.info.shards) / 2  # the cache was too small for all of them
    shards.close()


@pytest.mark.parametrize("order", ["global", "blocks"])
def test_a_cache_smaller_than_what_is_read_at_once_falls_back_to_ranges(
    s3: S3, url: str, local: Split, tmp_path: Path, order: str
) -> None:
    split = opened(url, cache(tmp_path, 0.08, local))
    shards = Prefetcher(split.remote_shards())
    with pytest.warns(
        UserWarning, match=r"is read by range requests, sample by sample, which is slower \(--cache-size"
    ):
        read_epoch(shards, split, order, 0, local, Share(1))
    assert any(request.range for request in s3.requests)
    shards.close()


def test_without_any_announcement_everything_is_still_read(url: str, local: Split, tmp_path: Path) -> None:
    split = opened(url, cache(tmp_path, 1, local))
    shards = Prefetcher(split.remote_shards())
    assert read(shards, split, 50) == expected(local, 50)
    assert shards.preadv(0, [memoryview(bytearray(10))], local.info.shards[0].bytes) == 0
    shards.close()


@pytest.mark.filterwarnings("ignore:the cache in")
@pytest.mark.parametrize("share", [1, 0.3])
def test_ranks_of_a_machine_fetch_each_shard_once_together_where_it_has_room(
    s3: S3, url: str, local: Split, tmp_path: Path, share: float
) -> None:
    place = cache(tmp_path, share, local)
    failures = []

    def rank(number: int) -> None:
        try:
            split = opened(url, place)
            shards = Prefetcher(split.remote_shards())
            read_epoch(shards, split, "blocks", 0, local, Share(1, number, 3))
            shards.close()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=rank, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    if share == 1:
        assert sorted(s3.gets()) == [shard.name for shard in local.info.shards]


@pytest.mark.parametrize("fault", ["error", "slow", "cut", "wrong"])
def test_what_fails_for_a_moment_is_tried_again(s3: S3, url: str, local: Split, tmp_path: Path, fault: str) -> None:
    split = opened(url, cache(tmp_path, 1, local))
    shards = Prefetcher(split.remote_shards())
    s3.fault = first(2 if fault != "slow" else 1, fault)
    shards.announce(range(8))
    for sample in range(24):
        assert read(shards, split, sample) == expected(local, sample)
    assert len(s3.gets()) >= (8 if fault == "slow" else 24)
    shards.close()


def test_errors_while_the_data_set_is_opened_are_tried_again(s3: S3, url: str, local: Split, tmp_path: Path) -> None:
    s3.fault = first(2, "error", suffix="")
    assert np.array_equal(opened(url, cache(tmp_path, 1, local)).index.crc32, local.index.crc32)


def test_bytes_that_stay_wrong_are_an_error_that_names_the_shard(
    s3: S3, url: str, local: Split, tmp_path: Path
) -> None:
    split = opened(url, cache(tmp_path, 1, local))
    shards = Prefetcher(split.remote_shards())
    s3.fault = first(1000, "wrong", suffix="00002.tar")
    shards.announce(range(4))
    assert read(shards, split, 0) == expected(local, 0)
    with pytest.raises(ShardfeedError, match=f"{url}/train/train-00002.tar arrives with other bytes"):
        read(shards, split, 6)
    shards.close()


def test_a_server_that_stays_down_is_an_error_without_credentials(
    s3: S3, url: str, local: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shards.remote.object_store.ATTEMPTS", 2)
    split = opened(url, cache(tmp_path, 1, local))
    shards = Prefetcher(split.remote_shards())
    s3.fault = first(1000, "error")
    shards.announce([0])
    with pytest.raises(
        ShardfeedError, match=r"train-00000.tar cannot be fetched \(2 attempts; the last: OSError: "
    ) as said:
        read(shards, split, 0)
    assert SECRET not in str(said.value)
    shards.close()


@pytest.mark.parametrize("place", ["/proc/nowhere", "file/below"])
def test_a_cache_that_cannot_be_written_is_named_with_its_option(
    s3: S3, url: str, local: Split, tmp_path: Path, place: str
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ShardfeedError, match=rf"the cache in .*{place} cannot be written: .* \(--cache-dir"):
        open_dataset(url, Cache(tmp_path / place))


def test_a_full_disk_is_said_when_the_index_is_kept(
    s3: S3, url: str, local: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = opened(url, cache(tmp_path, 1, local))

    def full(_: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("shards.dataset.replacing", full)
    with pytest.raises(ShardfeedError, match=r"cannot be written: No space left on device \(--cache-dir"):
        _ = split.index


def test_a_full_disk_is_said_when_a_shard_is_kept(
    s3: S3, url: str, local: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = opened(url, cache(tmp_path, 1, local))
    shards = Prefetcher(split.remote_shards())

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(fsspec.filesystem("s3"), "get_file", full)
    shards.announce([0])
    with pytest.raises(ShardfeedError, match=r"train-00000.tar cannot be kept in .*: no space is left there"):
        read(shards, split, 0)
    shards.close()
    assert not list((tmp_path / "cache").rglob("*.part"))


def test_who_waits_for_a_shard_takes_over_when_the_process_that_fetches_it_dies(
    s3: S3, url: str, local: Split, tmp_path: Path
) -> None:
    place = cache(tmp_path, 1, local)
    split = opened(url, place)
    assert len(split.index) == 96
    shard = local.info.shards[0]

    def hang(path: Path) -> None:
        (tmp_path / "begun").touch()
        time.sleep(100)

    child = os.fork()
    if child == 0:
        place.fetch(shard.sha256, shard.bytes, hang, "it")
        os._exit(0)
    while not (tmp_path / "begun").exists():
        time.sleep(0.005)
    shards = Prefetcher(split.remote_shards())
    shards.announce([0, 1])
    assert read(shards, split, 3) == expected(local, 3)  # the next one does not wait
    assert s3.gets() == [local.info.shards[1].name]
    killer = threading.Timer(0.2, os.kill, (child, signal.SIGKILL))
    killer.start()
    assert read(shards, split, 0) == expected(local, 0)
    os.waitpid(child, 0)
    assert s3.gets() == [local.info.shards[1].name, shard.name]
    shards.close()


def test_an_index_that_arrives_wrong_is_fetched_again(s3: S3, url: str, local: Split, tmp_path: Path) -> None:
    s3.fault = first(2, "wrong", suffix="index.parquet")
    assert np.array_equal(opened(url, cache(tmp_path, 1, local)).index.crc32, local.index.crc32)
    assert len(s3.gets("index.parquet")) == 3


def test_an_index_of_another_version_of_the_data_set_is_an_error_that_names_it(
    s3: S3, url: str, local: Split, tmp_path: Path
) -> None:
    other = tmp_path / "other.parquet"
    index = Index.read(local.root / "train" / INDEX, keys=True)
    replace(index, label=index.label[::-1].copy()).write(other)
    ObjectStore(url).put(other, f"train/{INDEX}")
    split = opened(url, cache(tmp_path, 1, local))
    with pytest.raises(ShardfeedError, match=f"{url}/train/index.parquet arrives with other bytes than its manifest"):
        _ = split.index
    assert not list((tmp_path / "cache").rglob(INDEX))


def test_a_manifest_that_says_nothing_of_the_index_is_read(s3: S3, local: Split, tmp_path: Path) -> None:
    root = Path(shutil.copytree(local.root, tmp_path / "old"))
    replace(local.manifest, splits={"train": replace(local.info, index=None)}).write(root)
    split = opened(s3.upload(root, "old"), cache(tmp_path, 1, local))
    assert np.array_equal(split.index.crc32, local.index.crc32)


def test_a_shard_that_is_gone_is_named(s3: S3, url: str, local: Split, tmp_path: Path) -> None:
    split = opened(url, cache(tmp_path, 1, local))
    ObjectStore(url).remove("train/train-00005.tar")
    shards = Prefetcher(split.remote_shards())
    shards.announce([5])
    with pytest.raises(ShardfeedError, match=r"train-00005.tar is not there, and the manifest names it"):
        read(shards, split, 15)
    shards.close()


def test_closing_does_not_wait_for_a_server_that_hangs(s3: S3, url: str, local: Split, tmp_path: Path) -> None:
    split = opened(url, cache(tmp_path, 1, local))
    shards = Prefetcher(split.remote_shards())
    s3.fault = lambda request: "error"
    shards.announce(range(10))
    reader = threading.Thread(target=lambda: refused(shards, split))
    reader.start()
    shards.close()
    reader.join(10)
    assert not reader.is_alive()


def refused(shards: Prefetcher, split: Split) -> None:
    with pytest.raises(ShardfeedError):
        read(shards, split, 0)


def test_a_store_that_cannot_be_written_is_said_so_without_trying_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise NotImplementedError  # as fsspec does for stores that are only read

    monkeypatch.setattr(fsspec.filesystem("memory"), "pipe_file", unknown)
    with pytest.raises(UsageError, match="memory://there/name cannot be written: memory:// does not offer that"):
        ObjectStore("memory://there").write("name", b"")


class SetAtTheThirdLook(threading.Event):
    looks = 0

    def is_set(self) -> bool:
        self.looks += 1
        return self.looks > 2


def test_a_transfer_ends_in_its_midst_once_nobody_wants_the_file(s3: S3, tmp_path: Path) -> None:
    s3.put("large.tar", bytes(10**6))
    with pytest.raises(Cancelled):
        ObjectStore(s3.url).fetch("large.tar", tmp_path / "large.tar", SetAtTheThirdLook())
    assert 0 < (tmp_path / "large.tar").stat().st_size < 10**6
    assert len(s3.gets()) == 1


def test_the_hub_keeps_its_fast_way() -> None:
    """Its file system leaves it for any callback that is not one of these."""
    assert isinstance(_until(threading.Event()), NoOpCallback)


def test_a_thread_that_wakes_after_the_end_finds_nothing_to_do(tmp_path: Path) -> None:
    shards = Prefetcher(RemoteShards(ObjectStore("memory://nothing"), [], Cache(tmp_path)))
    shards._not_before = {0: 0.0}  # another process fetches it, and now is the time to look again
    shards.close()
    assert shards._next() is None


def test_what_is_no_data_set(s3: S3, url: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"{s3.url}/elsewhere holds no manifest.json"):
        open_dataset(f"{s3.url}/elsewhere", Cache(tmp_path))
    with pytest.raises(UsageError, match="has no split x: it has train"):
        choose_split(url, ["x"], Cache(tmp_path))


def test_a_remote_split_has_places_and_no_paths(url: str, local: Split, tmp_path: Path) -> None:
    split = opened(url, cache(tmp_path, 1, local))
    assert split.shard_place(3) == f"{url}/train/train-00003.tar"
    assert local.shard_place(3) == str(local.shard_paths[3])
    with pytest.raises(UsageError, match="is not on this machine"):
        _ = split.shard_paths
    assert list(split.keys()) == list(local.keys())


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def web(local: Split) -> Iterator[str]:
    handler = functools.partial(Quiet, directory=str(local.root))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_data_set_on_a_web_server_is_read(web: str, local: Split, tmp_path: Path) -> None:
    pytest.importorskip("aiohttp", reason="needs the extra http")
    for share in (1, 0.1):  # also where the server, as Python's, knows no ranges
        split = opened(web, cache(tmp_path / str(share), share, local))
        shards = Prefetcher(split.remote_shards())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            read_epoch(shards, split, "global", 0, local, Share(1))
        shards.close()


@pytest.mark.parametrize(
    ("place", "yes"),
    [("s3://a/b", True), ("https://a", True), ("/a/b", False), ("a:b", False), ("./s3:/a", False), ("C://", False)],
)
def test_urls(place: str, yes: bool) -> None:
    assert is_url(place) is yes


@pytest.mark.parametrize(
    "place", ["s3:/bucket/data", "s3:bucket", "s3://", "S3:///data", "hf:/datasets/me", "https:/a"]
)
def test_what_is_nearly_a_url_is_no_directory(place: str) -> None:
    with pytest.raises(UsageError, match=r"is not a URL: write [a-z0-9]+://BUCKET/PATH"):
        open_dataset(place)


def test_capitals_and_slashes_around_a_url_do_not_matter(s3: S3, url: str, local: Split, tmp_path: Path) -> None:
    assert ObjectStore(f"S3://{url.partition('://')[2]}//") == ObjectStore(url)


@pytest.mark.parametrize(
    "url",
    ["https://me:pass@host/data", "https://token@host/data", "s3://key:pass@bucket/data", "https://h/d?sig=abcdef"],
)
def test_a_url_with_credentials_is_refused_without_repeating_them(url: str) -> None:
    with pytest.raises(UsageError, match="holds a user, a password or a query") as said:
        ObjectStore(url)
    assert not any(word in str(said.value) for word in ("me:", "pass@", "token@", "abcdef"))


def test_an_unknown_kind_of_url_is_refused() -> None:
    with pytest.raises(UsageError, match="fsspec knows no nosuch://"):
        ObjectStore("nosuch://a/b")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(scheme: str) -> None:
        raise ImportError(scheme)

    monkeypatch.setattr("fsspec.filesystem", missing)
    with pytest.raises(MissingDependency, match=r"s3://a/b cannot be opened: pip install 'shardfeed\[s3\]'"):
        ObjectStore("s3://a/b")


def test_messages_lose_their_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS)
    said = without_secrets(
        f"403 for url https://user:pw@host/x?X-Amz-Signature=0123abcd&part=2, key {ACCESS}, secret {SECRET}"
    )
    assert not any(word in said for word in (ACCESS, SECRET, "pw@", "0123abcd"))
    assert said.startswith("403 for url https://***@host/x?")
