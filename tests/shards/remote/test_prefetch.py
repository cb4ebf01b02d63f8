"""Shards downloaded ahead from a real S3 server on loopback whose answers are slow, wrong, cut off or errors."""

import errno
import functools
import http.server
import os
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from shards.common.errors import ShardfeedError
from shards.dataset import Split, open_dataset
from shards.remote.cache import Cache
from shards.remote.object_store import ObjectStore
from shards.remote.prefetch import Prefetcher
from shards.remote.shards import RemoteShards
from shards.sampling.order import Share, epoch_order, upcoming
from tests.conftest import jpeg, photo, write_split
from tests.helpers.s3 import S3, SECRET, first

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
        UserWarning,
        match=r"is read by range requests, sample by sample, which is slower \(Cache\(bytes=...\) changes",
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


def test_shards_that_are_here_are_open_files_for_as_long_as_they_are_used(
    url: str, local: Split, tmp_path: Path
) -> None:
    split = opened(url, cache(tmp_path, 1, local))
    shards = Prefetcher(split.remote_shards())
    shards.announce([3])
    read(shards, split, int(np.flatnonzero(split.index.shard == 3)[0]))  # waits until it is here
    with shards.files(np.array([3, 5, 3], np.int32)) as files:
        shards.announce([])  # would close it
        assert files[0] == files[2]
        assert files[1] == -1
        assert os.pread(files[0], 10, 0) == local.shard_paths[3].read_bytes()[:10]
    with shards.files(np.array([3], np.int32)) as files:
        assert files.tolist() == [-1]
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


def test_a_full_disk_is_said_when_a_shard_is_kept(
    s3: S3, url: str, local: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = opened(url, cache(tmp_path, 1, local))
    shards = Prefetcher(split.remote_shards())

    async def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(fsspec.filesystem("s3"), "_get_file", full)
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


def test_a_thread_that_wakes_after_the_end_finds_nothing_to_do(tmp_path: Path) -> None:
    shards = Prefetcher(RemoteShards(ObjectStore("memory://nothing"), [], Cache(tmp_path)))
    shards._not_before = {0: 0.0}  # another process fetches it, and now is the time to look again
    shards.close()
    assert shards._next() is None


class Quiet(http.server.SimpleHTTPRequestHandler):
    gets: list[str] = []  # noqa: RUF012 - emptied by the fixture

    def do_GET(self) -> None:
        self.gets.append(self.path)
        super().do_GET()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def web(local: Split) -> Iterator[str]:
    Quiet.gets.clear()
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


def test_a_web_server_that_knows_no_ranges_is_warned_of_once(
    web: str, local: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("aiohttp", reason="needs the extra http")
    split = opened(web, cache(tmp_path, 0.1, local))
    shards = split.remote_shards()
    for number in (0, 1):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            buffer = bytearray(100)
            assert shards.read_range(number, [memoryview(buffer)], 512) == 100
            assert buffer == local.shard_paths[number].read_bytes()[512:612]
        assert [
            f"{web}/train answers a request for a part of a file with the whole" in str(w.message) for w in said
        ] == ([] if number else [True])


def test_of_a_web_server_that_knows_no_ranges_a_shard_is_fetched_once(web: str, local: Split, tmp_path: Path) -> None:
    pytest.importorskip("aiohttp", reason="needs the extra http")
    split = opened(web, cache(tmp_path, 1, local))
    shards = split.remote_shards()
    with pytest.warns(UserWarning, match="with the whole file, so shards are fetched whole"):
        shards.read_range(0, [memoryview(bytearray(10))], 0)
    for offset in (0, 512, 1024):
        buffer = bytearray(100)
        assert shards.read_range(1, [memoryview(buffer)], offset) == 100
        assert buffer == local.shard_paths[1].read_bytes()[offset : offset + 100]
    assert Quiet.gets.count("/train/train-00001.tar") == 1


def test_a_cache_that_may_only_be_read_is_read_and_the_rest_comes_by_ranges(
    url: str, local: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = opened(url, cache(tmp_path, 1, local))
    shards = Prefetcher(split.remote_shards())
    shards.announce([0])
    assert read(shards, split, 0) == expected(local, 0)
    shards.close()

    def refused(path: Path, *_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    for place in ("shards.dataset.open", "shards.dataset.split", "shards.remote.cache"):
        monkeypatch.setattr(f"{place}.holding", refused)
    split = opened(url, cache(tmp_path, 1, local))
    shards = Prefetcher(split.remote_shards())
    shards.announce([0, 1])
    with pytest.warns(UserWarning, match="may be read and not written: .*Cache.directory."):
        fetched = split.remote_shards().fetch(1)
    assert fetched is None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        assert [read(shards, split, sample) for sample in range(6)] == [expected(local, sample) for sample in range(6)]
    shards.close()


def test_a_cache_on_a_file_system_without_locks_is_one_line(
    url: str, local: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = opened(url, cache(tmp_path, 1, local))
    shards = split.remote_shards()
    os.close(shards.fetch(0) or 0)

    def unsupported(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", unsupported)
    for number in (0, 1):
        with pytest.raises(ShardfeedError, match=rf"the file system of {tmp_path}/.* has no locks .*Cache.directory."):
            shards.fetch(number)
    with pytest.raises(ShardfeedError, match="has no locks"):
        opened(url, Cache(tmp_path / "other"))
