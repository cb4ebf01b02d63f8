"""The cache of shards on disk: what it keeps, what it removes, and what crashes and other processes do to it."""

import errno
import hashlib
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.common.errors import Cancelled, ShardfeedError, UsageError
from shards.remote.cache import MARK, BeingFetched, Cache, parse_size

SIZE = 1000


def shard(number: int) -> bytes:
    return bytes([number % 256]) * SIZE


def sha(number: int) -> str:
    return hashlib.sha256(shard(number)).hexdigest()


def writes(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


def fetch(cache: Cache, number: int) -> int | None:
    return cache.fetch(sha(number), SIZE, writes(shard(number)), f"shard {number}")


def fetch_and_leave(cache: Cache, *numbers: int) -> None:
    for number in numbers:
        file = fetch(cache, number)
        assert file is not None
        os.close(file)


def holds(cache: Cache, number: int) -> bool:
    return (cache.directory / "shards" / f"{sha(number)}.tar").exists()


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """Room for three shards."""
    return Cache(tmp_path / "cache", 3 * SIZE + 10)


@pytest.mark.parametrize("suffix", [".tar", f".{SIZE}.part"])
@pytest.mark.parametrize("kind", ["link", "directory", "pipe"])
def test_what_is_no_file_is_refused_and_never_written_through(
    cache: Cache, tmp_path: Path, kind: str, suffix: str
) -> None:
    cache.claim()
    place = cache.directory / "shards" / f"{sha(0)}{suffix}"
    place.parent.mkdir()
    mine = tmp_path / "mine"
    mine.write_bytes(b"mine")
    if kind == "link":
        place.symlink_to(mine)
    elif kind == "directory":
        place.mkdir()
    else:
        os.mkfifo(place)
    with pytest.raises(ShardfeedError, match=rf"{suffix} is in the cache and no file, .*: remove it"):
        cache.pin(sha(0), SIZE) or fetch(cache, 0)
    assert mine.read_bytes() == b"mine"


def test_a_full_cache_of_many_shards_is_not_looked_through_for_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(tmp_path / "cache", 200 * SIZE)
    looks: list[None] = []
    fetch_and_leave(cache, *range(200))
    for number in range(200):  # some file systems tell times in steps of milliseconds
        os.utime(cache.directory / "shards" / f"{sha(number)}.tar", (number, number))
    entries = Cache._entries

    def counted(self: Cache) -> list[object]:
        looks.append(None)
        return list(entries(self))

    monkeypatch.setattr(Cache, "_entries", counted)
    fetch_and_leave(cache, *range(200, 212))
    assert len(looks) == 4  # each makes room for this one and two more, a hundredth of the cache
    assert [holds(cache, number) for number in (0, 11, 12, 211)] == [False, False, True, True]


def test_what_fits_is_left_where_no_room_had_to_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(tmp_path / "cache", 200 * SIZE)
    fetch_and_leave(cache, *range(199))
    monkeypatch.setattr("shards.remote.cache._listed", set())  # as another process would
    fetch_and_leave(cache, 199)
    assert all(holds(cache, number) for number in range(200))


def test_a_fetched_shard_is_read_and_found_again(cache: Cache) -> None:
    assert cache.pin(sha(1), SIZE) is None
    for file in (fetch(cache, 1), cache.pin(sha(1), SIZE)):
        assert file is not None
        assert os.pread(file, SIZE + 1, 0) == shard(1)
        os.close(file)


def test_the_least_recently_used_goes_first(cache: Cache) -> None:
    fetch_and_leave(cache, 1, 2, 3)
    for number in (2, 3, 1):
        time.sleep(0.01)  # the clock of the file system ticks slowly
        file = cache.pin(sha(number), SIZE)
        assert file is not None
        os.close(file)
    fetch_and_leave(cache, 4)
    assert [number for number in range(1, 5) if holds(cache, number)] == [1, 3, 4]


def test_what_is_in_use_stays_and_there_is_no_room(cache: Cache) -> None:
    held = [fetch(cache, number) for number in (1, 2, 3)]
    assert None not in held
    assert fetch(cache, 4) is None
    assert [number for number in range(1, 5) if holds(cache, number)] == [1, 2, 3]
    os.close(held[1] or 0)
    fetch_and_leave(cache, 4)
    assert [number for number in range(1, 5) if holds(cache, number)] == [1, 3, 4]


def test_a_shard_larger_than_the_cache_has_no_room(tmp_path: Path) -> None:
    assert fetch(Cache(tmp_path, SIZE - 1), 1) is None
    assert Cache(tmp_path, SIZE - 1).used() == 0


def test_wrong_bytes_are_fetched_again(cache: Cache) -> None:
    answers = [shard(9), shard(1)[:-1], shard(1)]
    file = cache.fetch(sha(1), SIZE, lambda path: writes(answers.pop(0))(path), "it")
    assert file is not None
    assert os.pread(file, SIZE, 0) == shard(1)


def test_bytes_that_stay_wrong_are_an_error_that_names_the_shard_and_leave_nothing(cache: Cache) -> None:
    with pytest.raises(ShardfeedError, match=r"s3://x/y.tar arrives with other bytes than its manifest says"):
        cache.fetch(sha(1), SIZE, writes(shard(9)), "s3://x/y.tar")
    assert cache.used() == 0
    assert list((cache.directory / "shards").iterdir()) == []


def test_a_failed_download_leaves_nothing(cache: Cache) -> None:
    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        cache.fetch(sha(1), SIZE, fail, "it")
    assert cache.used() == 0


def test_a_disk_that_fails_while_room_is_made_leaves_nothing_in_the_way(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Cache, "_count", full)
        with pytest.raises(OSError, match="No space"):
            fetch(cache, 1)
    fetch_and_leave(cache, 1)  # BeingFetched, if the partial file were still locked


def test_a_file_that_was_cut_off_is_fetched_again(cache: Cache) -> None:
    fetch_and_leave(cache, 1)
    (cache.directory / "shards" / f"{sha(1)}.tar").write_bytes(b"short")
    assert cache.pin(sha(1), SIZE) is None
    fetch_and_leave(cache, 1)


def test_a_download_under_way_takes_room_and_is_not_done_twice(cache: Cache) -> None:
    fetch_and_leave(cache, 2, 3)
    seen = []

    def during(path: Path) -> None:
        seen.append(cache.used())
        with pytest.raises(BeingFetched):
            fetch(cache, 1)
        fetch_and_leave(cache, 4)
        seen.append(cache.used())
        path.write_bytes(shard(1))

    file = cache.fetch(sha(1), SIZE, during, "it")
    assert file is not None
    assert seen == [3 * SIZE, 3 * SIZE]


def test_files_are_listed_only_where_room_is_needed(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[None] = []
    entries = Cache._entries

    def look(self: Cache) -> object:
        looks.append(None)
        return entries(self)

    monkeypatch.setattr(Cache, "_entries", look)
    fetch_and_leave(cache, 1, 2, 3)
    assert len(looks) == 1
    fetch_and_leave(cache, 4)
    assert len(looks) == 2
    assert [number for number in range(1, 5) if holds(cache, number)] == [2, 3, 4]


def test_what_was_removed_by_hand_and_failed_downloads_give_their_room_back(cache: Cache) -> None:
    fetch_and_leave(cache, 1, 2)
    for path in (cache.directory / "shards").iterdir():
        path.unlink()
    for number in (3, 4, 5):
        with pytest.raises(ShardfeedError):
            cache.fetch(sha(number), SIZE, writes(shard(99)), "it")
    fetch_and_leave(cache, 6, 7, 8)
    assert cache.used() == 3 * SIZE
    (cache.directory / "count").write_bytes(b"nonsense")
    fetch_and_leave(cache, 9)
    assert cache.used() == 3 * SIZE


def in_child(action: Callable[[], object]) -> int:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            action()
            status = 0
        finally:
            os._exit(status)
    return child


def test_a_crash_in_a_download_leaves_nothing_in_the_way(cache: Cache) -> None:
    def die(path: Path) -> None:
        path.write_bytes(shard(1)[: SIZE // 2])
        os.kill(os.getpid(), signal.SIGKILL)

    os.waitpid(in_child(lambda: cache.fetch(sha(1), SIZE, die, "it")), 0)
    assert cache.used() == SIZE
    fetch_and_leave(cache, 2)
    assert cache.used() == SIZE  # the partial file is gone
    fetch_and_leave(cache, 1)


def test_another_process_keeps_its_shards_until_it_dies(cache: Cache, tmp_path: Path) -> None:
    def hold() -> None:
        fetch(cache, 1)
        (tmp_path / "ready").touch()
        time.sleep(60)

    child = in_child(hold)
    while not (tmp_path / "ready").exists():
        time.sleep(0.005)
    fetch_and_leave(cache, 2, 3, 4, 5)
    assert holds(cache, 1)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    fetch_and_leave(cache, 6, 7)
    assert not holds(cache, 1)


def test_a_stop_ends_the_wait_for_the_lock_of_the_cache(cache: Cache, tmp_path: Path) -> None:
    def hold() -> None:
        with cache._alone():
            (tmp_path / "ready").touch()
            time.sleep(60)

    fetch_and_leave(cache, 1)
    child = in_child(hold)
    while not (tmp_path / "ready").exists():
        time.sleep(0.005)
    stop = threading.Event()
    threading.Timer(0.1, stop.set).start()
    with pytest.raises(Cancelled):
        cache.fetch(sha(2), SIZE, writes(shard(2)), "it", stop)
    file = cache.pin(sha(1), SIZE, stop)  # a shard that is here needs no lock
    assert file is not None
    os.close(file)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    fetch_and_leave(cache, 2)


def test_a_directory_of_others_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_bytes(b"...")
    with pytest.raises(
        UsageError, match=rf"{tmp_path} is no cache: it holds thesis.tex; give an empty .*Cache.directory."
    ):
        fetch(Cache(tmp_path), 1)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_cache_of_an_earlier_version_is_marked(cache: Cache) -> None:
    for name in ("shards", "datasets"):
        (cache.directory / name).mkdir(parents=True)
    fetch_and_leave(cache, 1)
    assert (cache.directory / MARK).read_bytes().startswith(b"Signature: 8a477f597d28d172789f06886806bc55")
    (cache.directory / "notes").touch()  # once it is marked, other files do not matter
    fetch_and_leave(cache, 2)


@pytest.mark.parametrize(
    "name", ["holiday.mp4", f"{sha(7)}.tar.gz", f"{sha(7)}.x.part", f"{sha(7)[1:]}.tar", "a.5.part"]
)
def test_files_of_others_among_the_shards_are_neither_counted_nor_removed(cache: Cache, name: str) -> None:
    fetch_and_leave(cache, 1)
    stranger = cache.directory / "shards" / name
    stranger.write_bytes(bytes(5 * SIZE))
    os.utime(stranger, (0, 0))
    assert cache.used() == SIZE
    fetch_and_leave(cache, 2, 3, 4, 5)
    assert stranger.stat().st_size == 5 * SIZE
    assert cache.used() == 3 * SIZE


@pytest.mark.parametrize("hash", ["", "x", "../../precious", "{precious}", "A" * 64, "a" * 63, "a" * 64 + "\n"])
def test_what_is_no_hash_is_never_a_path(cache: Cache, tmp_path: Path, hash: str) -> None:
    precious = tmp_path / "precious.tar"
    precious.write_bytes(b"...")
    named = hash.format(precious=precious.with_suffix(""))
    with pytest.raises(ShardfeedError, match="is not a SHA-256: it must be 64 hex digits"):
        cache.pin(named, SIZE)
    with pytest.raises(ShardfeedError, match="is not a SHA-256: it must be 64 hex digits"):
        cache.fetch(named, SIZE, writes(b""), "it")
    assert precious.read_bytes() == b"..."


def test_many_processes_at_once_stay_within_the_bound_and_see_whole_files(cache: Cache) -> None:
    def work(seed: int) -> None:
        for step in range(30):
            number = (seed * 7 + step * 3) % 6
            file = cache.pin(sha(number), SIZE)
            try:
                file = file if file is not None else fetch(cache, number)
            except BeingFetched:
                continue
            if file is not None:
                assert os.pread(file, SIZE + 1, 0) == shard(number)
                os.close(file)
            assert cache.used() <= cache.bytes

    children = [in_child(lambda seed=seed: work(seed)) for seed in range(4)]  # type: ignore[misc]
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 4


@given(st.lists(st.tuples(st.integers(0, 7), st.booleans()), max_size=25))
def test_never_more_than_the_bound_never_less_than_what_is_held(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, bool]]
) -> None:
    cache = Cache(tmp_path_factory.mktemp("cache"), 3 * SIZE)
    held: dict[int, int] = {}
    try:
        for number, keep in steps:
            if number in held:
                os.close(held.pop(number))
                continue
            file = cache.pin(sha(number), SIZE) or fetch(cache, number)
            assert (file is None) == (len(held) >= 3 and not holds(cache, number))
            if file is not None and keep:
                held[number] = file
            elif file is not None:
                os.close(file)
            assert cache.used() <= cache.bytes
            assert all(holds(cache, each) for each in held)
    finally:
        for file in held.values():
            os.close(file)


@pytest.mark.parametrize(
    ("text", "size"),
    [("200GB", 200 * 10**9), ("1.5 TB", 1_500 * 10**9), ("10k", 10_000), ("77", 77), ("5 MB", 5 * 10**6)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "-3GB", "lots", "3 GiBs", "0.1"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(UsageError, match="a size is given as 200GB"):
        parse_size(text)
