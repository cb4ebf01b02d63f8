"""The sample reader over shard files: the bytes of planned batches, what is wrong with them, and how it stops."""

import os
import resource
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from shards.common.errors import Cancelled, ShardfeedError
from shards.feed.local import LocalShards
from shards.feed.read import SampleReader, Shards
from shards.sampling.batch import NOT_COMPARED, ByteRanges, Cursor, PlannedBatch
from shards.sampling.crops import CropWindows
from tests.helpers.datasets import no_files


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def planned(
    *where: tuple[int, int, int], crc32: int | list[int] = NOT_COMPARED, upcoming: list[int] | None = None
) -> PlannedBatch:
    """A batch of samples at (shard, offset, size)."""
    count = len(where)
    shard, offset, size = np.array(where).T
    corner, flag = np.zeros((count, 2), np.int32), np.zeros(count, np.int32)
    exact = np.zeros((count, 2), np.float32)
    return PlannedBatch(
        cursor=Cursor(0, 0),
        ids=np.arange(count),
        drawn=np.arange(count),
        labels=np.zeros(count, np.int64),
        windows=CropWindows(corner, corner, exact, exact, flag, corner),
        size=1,
        ranges=ByteRanges(shard.astype(np.int32), offset, size, np.broadcast_to(np.array(crc32, np.int64), count)),
        upcoming=upcoming,
    )


def make(shards: Shards, threads: int = 8, **options: Any) -> SampleReader:
    return SampleReader(shards, threads=threads, stop=threading.Event(), **options)


class Finishing:
    """Stands for `StoredPixels` and its destinations: takes each sample as if its file were not open here."""

    def __init__(self, put: Callable[[int, npt.NDArray[np.uint8]], object]) -> None:
        self.put = put
        self._batch: PlannedBatch

    def images(self, batch: PlannedBatch) -> None:
        """No images are made."""

    def destination(self, batch: PlannedBatch, images: None, places: Sequence[int]) -> "Finishing":
        self._batch = batch
        return self

    def read(self, files: npt.NDArray[np.intc], part: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        return np.zeros(len(part), bool)

    def room(self, i: int) -> npt.NDArray[np.uint8]:
        return np.empty(int(self._batch.ranges.size[i]), np.uint8)


@pytest.fixture
def hundred(tmp_path: Path) -> Iterator[LocalShards]:
    """One shard of 100 bytes."""
    shards = LocalShards([write(tmp_path / "a.tar", b"x" * 100)], [100])
    yield shards
    shards.close()


def test_reads_are_the_bytes_of_the_files(tmp_path: Path) -> None:
    first, second = bytes(range(256)) * 40, b"second" * 2000
    paths = [write(tmp_path / "a.tar", first), write(tmp_path / "b.tar", second)]
    shards = LocalShards(paths, [len(first), len(second)])
    reader = make(shards)
    wanted = [(i % 2, 300 * i, 100 + i) for i in range(25)]
    reading = reader.start(planned(*wanted, upcoming=[1]))
    assert reading.wait() == []
    expected = [(first, second)[shard][offset : offset + size] for shard, offset, size in wanted]
    assert [bytes(data) for data in reading.data] == expected
    reader.close()
    shards.close()


def test_samples_read_in_place_of_others_take_their_places(hundred: LocalShards, tmp_path: Path) -> None:
    reader = make(hundred)
    data = [np.zeros(1, np.uint8) for _ in range(4)]
    assert reader.start_in_place(planned((0, 3, 2), (0, 9, 4)), data, [3, 1]).wait() == []
    assert [sample.tolist() for sample in data] == [[0], [ord("x")] * 4, [0], [ord("x")] * 2]
    reader.close()


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    with pytest.raises(ShardfeedError, match=r"gone\.tar: No such file"):
        LocalShards([tmp_path / "gone.tar"], [10])


def test_a_pipe_in_place_of_a_shard_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.tar")
    with pytest.raises(ShardfeedError, match=r"pipe.tar has 0 bytes, the manifest says 10"):
        LocalShards([tmp_path / "pipe.tar"], [10])


def test_a_shard_that_was_cut_off_is_named_with_both_lengths(tmp_path: Path) -> None:
    with pytest.raises(ShardfeedError, match=r"a\.tar has 1,000 bytes, the manifest says 5,000"):
        LocalShards([write(tmp_path / "a.tar", b"x" * 1000)], [5000])


def test_what_was_cut_off_later_is_reported_by_place(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", b"x" * 5000)
    reader = make(LocalShards([path], [5000]))
    path.write_bytes(b"x" * 1000)
    troubles = reader.start(planned((0, 0, 900), (0, 900, 200))).wait()
    assert troubles == [(1, "is not there: the file has been cut off")]
    reader.close()


def test_a_shard_that_was_deleted_can_still_be_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", b"x" * 5000)
    reader = make(LocalShards([path], [5000]))
    path.unlink()
    assert reader.start(planned((0, 0, 900))).wait() == []
    reader.close()


def test_checksums_are_compared_where_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", b"x" * 100 + b"y" * 100)
    reader = make(LocalShards([path], [200]))
    troubles = reader.start(planned((0, 0, 100), (0, 100, 100), crc32=zlib.crc32(b"x" * 100))).wait()
    assert troubles == [(1, "is damaged (its checksum is wrong)")]
    reader.close()


def test_each_right_sample_is_handed_on_once_by_the_thread_that_read_it(tmp_path: Path) -> None:
    data = bytes(range(200)) * 30
    offsets, sizes = [90 * i for i in range(40)], [50 + i for i in range(40)]
    samples = [data[offset : offset + size] for offset, size in zip(offsets, sizes, strict=True)]
    sums = [zlib.crc32(sample) for sample in samples]
    sums[7] ^= 1
    got: dict[int, bytes] = {}

    def put(i: int, sample: npt.NDArray[np.uint8]) -> None:
        assert i not in got
        got[i] = bytes(sample)

    shards = LocalShards([write(tmp_path / "a.tar", data)], [len(data)])
    reader = make(shards, threads=3, stored=Finishing(put))
    wanted = [(0, offset, size) for offset, size in zip(offsets, sizes, strict=True)]
    assert reader.start(planned(*wanted, crc32=sums)).wait() == [(7, "is damaged (its checksum is wrong)")]
    assert got == {i: sample for i, sample in enumerate(samples) if i != 7}
    reader.close()


def test_reads_that_have_not_begun_do_not_begin_after_closing(hundred: LocalShards) -> None:
    busy, may_go_on, handed_on = threading.Event(), threading.Event(), []

    def wait(i: int, sample: npt.NDArray[np.uint8]) -> None:
        handed_on.append(int(sample[0]))
        busy.set()
        may_go_on.wait(10)

    reader = make(hundred, threads=1, stored=Finishing(wait))
    reader.start(planned((0, 0, 1)))  # keeps the thread
    reader.start(planned((0, 0, 1), (0, 1, 1)))
    assert busy.wait(10)
    threading.Timer(0.05, may_go_on.set).start()
    reader.close()
    assert len(handed_on) == 1


def test_an_error_of_the_destination_comes_out_of_the_wait(hundred: LocalShards) -> None:
    def put(i: int, sample: npt.NDArray[np.uint8]) -> None:
        raise ValueError("no crop window")

    reader = make(hundred, stored=Finishing(put))
    with pytest.raises(ValueError, match="no crop window"):
        reader.start(planned((0, 0, 50), (0, 50, 50))).wait()
    reader.close()


class Silent:
    """Shards whose bytes do not come until the reader's stop event is set."""

    def __init__(self) -> None:
        self.announced: list[list[int]] = []

    def preadv(
        self, number: int, buffers: Sequence[memoryview], offset: int, stop: threading.Event | None = None
    ) -> int:
        assert stop is not None
        stop.wait()
        raise ShardfeedError("given up")

    files = no_files

    def announce(self, numbers: Sequence[int]) -> None:
        self.announced.append(list(numbers))

    def close(self) -> None: ...


def test_a_stop_ends_the_wait_for_bytes_that_do_not_come() -> None:
    stop = threading.Event()
    reader = SampleReader(Silent(), threads=2, stop=stop)
    reading = reader.start(planned((0, 0, 1), (0, 1, 1)))
    threading.Timer(0.1, stop.set).start()
    began = time.monotonic()
    with pytest.raises(Cancelled):
        reading.wait()
    reader.close()
    assert time.monotonic() - began < 5


def test_shards_being_read_are_announced_before_those_to_come() -> None:
    stop, shards = threading.Event(), Silent()
    reader = SampleReader(shards, threads=2, stop=stop)
    reader.start(planned((7, 0, 1), (3, 0, 1)))
    reader.start(planned((3, 0, 1), upcoming=[3, 5, 1]))
    stop.set()
    reader.close()
    assert shards.announced == [[7, 3, 5, 1]]


def test_the_limit_of_open_files_is_raised_for_many_shards(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    path = write(tmp_path / "a.tar", b"x" * 10)
    opened: list[LocalShards] = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (300, before[1]))
        # Files that others hold open count too.
        opened += [LocalShards([path] * 400, [10] * 400) for _ in range(3)]
        assert opened[2].preadv(399, [memoryview(bytearray(1))], 0) == 1
    finally:
        for shards in opened:
            shards.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
