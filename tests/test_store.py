import resource
from pathlib import Path

import pytest

from shards.errors import ShardfeedError
from shards.store import MappedShards


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_reads_are_the_bytes_of_the_file(tmp_path: Path) -> None:
    first, second = bytes(range(256)) * 40, b"second" * 2000
    paths = [write(tmp_path / "a.tar", first), write(tmp_path / "b.tar", second)]
    store = MappedShards(paths, [len(first), len(second)])
    store.announce(1, 5000, 600)
    assert bytes(store.read(1, 5000, 600)) == second[5000:5600]
    assert bytes(store.read(0, 0, len(first))) == first


def test_a_view_outlives_the_store(tmp_path: Path) -> None:
    view = MappedShards([write(tmp_path / "a.tar", b"x" * 9000)], [9000]).read(0, 8000, 3)
    assert bytes(view) == b"xxx"


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    with pytest.raises(ShardfeedError, match=r"gone\.tar: No such file"):
        MappedShards([tmp_path / "gone.tar"], [10])


def test_a_shard_that_was_cut_off_is_named_with_both_lengths(tmp_path: Path) -> None:
    with pytest.raises(ShardfeedError, match=r"a\.tar has 1,000 bytes, the manifest says 5,000"):
        MappedShards([write(tmp_path / "a.tar", b"x" * 1000)], [5000])


def test_the_limit_of_open_files_is_raised_for_many_shards(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    path = write(tmp_path / "a.tar", b"x" * 10)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (300, before[1]))
        store = MappedShards([path] * 400, [10] * 400)
        assert bytes(store.read(399, 0, 1)) == b"x"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
