"""The loader over a data set behind a URL: the same batches as from disk, and errors that end the epoch.

What the store, the cache and other processes may do to single shards is tested in test_prefetch.py.
"""

import threading
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from shards.common.errors import ShardfeedError
from shards.common.locks import holding
from shards.dataset import Split, open_dataset
from shards.loader import Loader
from shards.remote.cache import Cache
from shards.sampling.order import Order
from tests.conftest import jpeg, photo, write_split
from tests.helpers.kill import wait_until
from tests.helpers.s3 import S3

pytest_plugins = ("tests.helpers.s3_server",)

SETTINGS = {"size": 8, "resize": 16, "device": "cpu", "dtype": "uint8", "threads": 1}
Epoch = list[tuple[torch.Tensor, torch.Tensor]]


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Split:
    """32 shards of eight small images: four of them, a block, are many batches."""
    images = [jpeg(photo(16, 16 + i % 5, seed=i)) for i in range(256)]
    return write_split(tmp_path_factory.mktemp("local"), images, short_side=16, shard_size=8)


def opened(url: str, tmp_path: Path, share: float, local: Split) -> Split:
    return open_dataset(url, Cache(tmp_path / "cache", int(share * local.info.bytes) + 1))["train"]


def loader(split: Split, order: Order, rank: int = 0, world_size: int = 1, **options: Any) -> Loader:
    window = {"window": 4} if order == "blocks" else {}
    return Loader(
        split,
        batch_size=2,
        train=order != "index",
        order=order,
        rank=rank,
        world_size=world_size,
        **{**SETTINGS, **window, **options},
    )


def assert_same(ours: Epoch, theirs: Epoch) -> None:
    assert len(ours) == len(theirs)
    for (images, labels), (expected, expected_labels) in zip(ours, theirs, strict=True):
        assert torch.equal(images, expected)
        assert torch.equal(labels, expected_labels)


def test_epochs_are_the_same_as_from_disk_and_only_the_first_makes_requests(
    s3: S3, local: Split, tmp_path: Path
) -> None:
    split = opened(s3.upload(local.root), tmp_path, 1, local)
    for order in ("global", "blocks", "index"):
        with loader(split, order) as remote, loader(local, order) as disk:
            for _ in range(2):
                assert_same(list(remote), list(disk))
    assert sorted(s3.gets()) == [shard.name for shard in local.info.shards]


def test_ranks_share_what_one_of_them_fetched_and_an_epoch_is_entered_in_its_middle(
    s3: S3, local: Split, tmp_path: Path
) -> None:
    split = opened(s3.upload(local.root), tmp_path, 1, local)
    for rank in range(2):
        with loader(split, "blocks", rank, 2) as remote, loader(local, "blocks", rank, 2) as disk:
            state = {**disk.state_dict(), "epoch": 3, "position": 48}
            remote.load_state_dict(state)
            disk.load_state_dict(state)
            assert_same(list(remote), list(disk))
    assert len(set(s3.gets())) == len(s3.gets())


def test_a_store_that_is_gone_ends_the_epoch_with_the_name_of_the_shard(
    s3: S3, local: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shards.remote.object_store.ATTEMPTS", 2)
    split = opened(s3.upload(local.root), tmp_path, 1, local)
    assert len(split.index) == 256
    s3.fault = lambda request: "error"
    with loader(split, "blocks") as remote, pytest.raises(ShardfeedError, match=r"train-\d+\.tar cannot be fetched"):
        list(remote)


@pytest.mark.parametrize("share", [1.0, 0.0], ids=["whole shards", "byte ranges"])
def test_a_shard_that_cannot_be_fetched_is_skipped_and_named_once(
    s3: S3, local: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    monkeypatch.setattr("shards.remote.object_store.ATTEMPTS", 2)
    split = opened(s3.upload(local.root), tmp_path, share, local)
    s3.fault = lambda request: "error" if request.path.endswith("train-00005.tar") else ""
    with (
        loader(split, "index", on_error="skip") as remote,
        loader(local, "index") as disk,
        pytest.warns(UserWarning, match="skipped: ") as warned,
    ):
        images, expected = (torch.cat([images for images, _ in each]) for each in (remote, disk))
    assert remote.skipped == 8
    expected[40:48] = expected[48]
    assert torch.equal(images, expected)
    [line] = [str(each.message) for each in warned if "skipped: " in str(each.message)]
    assert "train-00005.tar" in line
    assert len([name for name in s3.gets() if name == "train-00005.tar"]) <= 2 * 8  # by each reading thread at most


def test_a_store_that_is_gone_ends_an_epoch_that_skips_damaged_samples(
    s3: S3, local: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shards.remote.object_store.ATTEMPTS", 1)
    split = opened(s3.upload(local.root), tmp_path, 1, local)
    assert len(split.index) == 256
    s3.fault = lambda request: "error"
    warnings.simplefilter("ignore")
    with (
        loader(split, "blocks", on_error="skip") as remote,
        pytest.raises(ShardfeedError, match=r"4 of the 32 shards of train cannot be fetched, too many"),
    ):
        list(remote)


def test_the_index_is_there_before_the_loop_begins(s3: S3, local: Split, tmp_path: Path) -> None:
    """The main thread fetches it, so Ctrl-C ends the wait for it."""
    with loader(opened(s3.upload(local.root), tmp_path, 1, local), "blocks"):
        assert s3.gets("index.parquet") == ["index.parquet"]


def refused(remote: Loader) -> None:
    with pytest.raises(ShardfeedError, match="the loader is closed"):
        next(iter(remote))


def test_closing_ends_a_wait_for_the_lock_of_the_cache(s3: S3, local: Split, tmp_path: Path) -> None:
    split = opened(s3.upload(local.root), tmp_path, 1, local)
    (tmp_path / "cache" / "shards").mkdir()
    for shard in local.info.shards:  # cut off: the loop's thread removes them, for which it takes the lock
        (tmp_path / "cache" / "shards" / f"{shard.sha256}.tar").touch()
    with holding(tmp_path / "cache" / "lock"), loader(split, "blocks") as remote:
        threading.Thread(target=refused, args=(remote,), daemon=True).start()
        wait_until(lambda: remote._feed._loop is not None)
        time.sleep(0.2)  # so that the thread waits; if it does not yet, this test passes as well
        closing = threading.Thread(target=remote.close, daemon=True)
        closing.start()
        closing.join(20)
        assert not closing.is_alive()
