import resource
import threading
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from shards.common.errors import ShardfeedError
from shards.feed.local import LocalShards
from shards.feed.read import READERS, Places, ShardStore


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def places(*where: tuple[int, int, int], crc32: int = 0) -> Places:
    """Places of (shard, offset, size)."""
    shard, offset, size = map(list, zip(*where, strict=True))
    return Places(shard, offset, size, [crc32] * len(where))


def test_reads_are_the_bytes_of_the_files(tmp_path: Path) -> None:
    first, second = bytes(range(256)) * 40, b"second" * 2000
    paths = [write(tmp_path / "a.tar", first), write(tmp_path / "b.tar", second)]
    store = ShardStore(LocalShards(paths, [len(first), len(second)]))
    store.announce([1])
    wanted = [(i % 2, 300 * i, 100 + i) for i in range(25)]
    reading = store.read(places(*wanted))
    assert reading.wait() == []
    expected = [(first, second)[shard][offset : offset + size] for shard, offset, size in wanted]
    assert [bytes(data) for data in reading.data] == expected
    store.close()


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    with pytest.raises(ShardfeedError, match=r"gone\.tar: No such file"):
        ShardStore(LocalShards([tmp_path / "gone.tar"], [10]))


def test_a_shard_that_was_cut_off_is_named_with_both_lengths(tmp_path: Path) -> None:
    with pytest.raises(ShardfeedError, match=r"a\.tar has 1,000 bytes, the manifest says 5,000"):
        ShardStore(LocalShards([write(tmp_path / "a.tar", b"x" * 1000)], [5000]))


def test_what_was_cut_off_later_is_reported_by_position(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", b"x" * 5000)
    store = ShardStore(LocalShards([path], [5000]))
    path.write_bytes(b"x" * 1000)
    assert store.read(places((0, 0, 900), (0, 900, 200))).wait() == [(1, "is not there: the file has been cut off")]
    store.close()


def test_a_shard_that_was_deleted_can_still_be_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", b"x" * 5000)
    store = ShardStore(LocalShards([path], [5000]))
    path.unlink()
    assert store.read(places((0, 0, 900))).wait() == []
    store.close()


def test_checksums_are_compared_where_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", b"x" * 100 + b"y" * 100)
    store = ShardStore(LocalShards([path], [200]), check=True)
    trouble = store.read(places((0, 0, 100), (0, 100, 100), crc32=zlib.crc32(b"x" * 100))).wait()
    assert trouble == [(1, "is damaged (its checksum is wrong)")]
    store.close()


def test_each_sample_that_is_right_is_used_once_by_a_thread_that_read_it(tmp_path: Path) -> None:
    data = bytes(range(200)) * 30
    store = ShardStore(LocalShards([write(tmp_path / "a.tar", data)], [len(data)]), check=True, threads=3)
    offsets, sizes = [90 * i for i in range(40)], [50 + i for i in range(40)]
    samples = [data[offset : offset + size] for offset, size in zip(offsets, sizes, strict=True)]
    sums = [zlib.crc32(sample) for sample in samples]
    sums[7] ^= 1
    used: dict[int, bytes] = {}

    def use(i: int, sample: npt.NDArray[np.uint8]) -> None:
        assert i not in used
        used[i] = bytes(sample)

    reading = store.read(Places([0] * 40, offsets, sizes, sums), use)
    assert reading.wait() == [(7, "is damaged (its checksum is wrong)")]
    assert reading.data == []
    assert used == {i: sample for i, sample in enumerate(samples) if i != 7}
    store.close()


def test_what_nobody_wants_any_more_is_not_begun(tmp_path: Path) -> None:
    store = ShardStore(LocalShards([write(tmp_path / "a.tar", b"x" * 100)], [100]))
    may_go_on, used = threading.Event(), []

    def wait(i: int, sample: npt.NDArray[np.uint8]) -> None:
        may_go_on.wait(10)

    first = store.read(places(*[(0, 0, 1)] * READERS), wait)  # keeps every thread
    second = store.read(places((0, 0, 1), (0, 1, 1)), lambda i, sample: used.append(i))
    second.cancel()
    may_go_on.set()
    assert first.wait() == []
    store.close()
    assert used == []


def test_what_fails_in_a_use_comes_out_of_the_wait(tmp_path: Path) -> None:
    store = ShardStore(LocalShards([write(tmp_path / "a.tar", b"x" * 100)], [100]))

    def use(i: int, sample: npt.NDArray[np.uint8]) -> None:
        raise ValueError("no window")

    with pytest.raises(ValueError, match="no window"):
        store.read(places((0, 0, 50), (0, 50, 50)), use).wait()
    store.close()


def test_the_limit_of_open_files_is_raised_for_many_shards(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    path = write(tmp_path / "a.tar", b"x" * 10)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (300, before[1]))
        store = ShardStore(LocalShards([path] * 400, [10] * 400))
        reading = store.read(places((399, 0, 1)))
        assert reading.wait() == []
        assert bytes(reading.data[0]) == b"x"
        store.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_limit_of_open_files_counts_what_other_stores_hold(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    path = write(tmp_path / "a.tar", b"x" * 10)
    stores: list[ShardStore] = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (300, before[1]))
        stores += [ShardStore(LocalShards([path] * 400, [10] * 400)) for _ in range(3)]
        assert stores[2].read(places((399, 0, 1))).wait() == []
    finally:
        for store in stores:
            store.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
