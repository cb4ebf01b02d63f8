"""A split in memory, shared by processes."""

import gc
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from shards import memory
from shards.dataset import Split
from shards.errors import ShardfeedError
from tests.conftest import jpeg, photo, write_split

ATTACH = """
import sys
from shards.dataset import open_dataset
from shards.memory import hold
held = hold(open_dataset(sys.argv[1])["train"])
print(sum(int(shard.sum()) for shard in held.shards), flush=True)
sys.stdin.read()
print(sum(int(shard.sum()) for shard in held.shards), flush=True)
"""


@pytest.fixture
def split(tmp_path: Path) -> Split:
    return write_split(tmp_path, [jpeg(photo(24, 24 + i, i)) for i in range(9)], short_side=24, shard_size=4)


def attached(split: Split) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", ATTACH, str(split.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def answer(process: "subprocess.Popen[str]") -> int:
    assert process.stdout is not None
    return int(process.stdout.readline())


def total(split: Split) -> int:
    return sum(sum(path.read_bytes()) for path in split.shard_paths)


def test_memory_holds_the_bytes_of_the_shards(split: Split) -> None:
    held = memory.hold(split)
    assert [shard.tobytes() for shard in held.shards] == [path.read_bytes() for path in split.shard_paths]


def test_one_process_holds_a_split_once(split: Split) -> None:
    first = memory.hold(split)
    assert memory.hold(split) is first


def test_another_process_gets_the_same_memory_and_reads_no_shard(split: Split) -> None:
    held = memory.hold(split)
    expected = total(split)
    for path in split.shard_paths:
        path.unlink()
    with attached(split) as process:
        assert answer(process) == expected
        process.communicate("")
    assert sum(int(shard.sum()) for shard in held.shards) == expected


def test_memory_outlives_the_process_that_filled_it(split: Split) -> None:
    expected = total(split)
    with attached(split) as first:
        assert answer(first) == expected
        with attached(split) as second:
            assert answer(second) == expected
            first.kill()
            first.wait()
            assert second.communicate("")[0] == f"{expected}\n"


def test_after_a_kill_the_next_process_fills_memory_again(split: Split) -> None:
    expected = total(split)
    for _ in range(2):
        with attached(split) as process:
            assert answer(process) == expected
            process.kill()


def test_memory_and_its_thread_are_gone_with_the_last_reference(split: Split) -> None:
    gc.collect()
    files = set(Path("/proc/self/fd").iterdir())
    held = memory.hold(split)
    part = held.shards[0][:10]
    first = part.tolist()
    del held
    gc.collect()
    assert part.tolist() == first
    assert not [thread for thread in threading.enumerate() if thread.name == "shardfeed-memory"]
    del part
    gc.collect()
    assert set(Path("/proc/self/fd").iterdir()) <= files


def test_memory_cannot_be_written(split: Split) -> None:
    held = memory.hold(split)
    with pytest.raises(ValueError, match="read-only"):
        held.shards[0][0] = 1


def test_a_split_larger_than_free_memory_is_refused(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda: 1000)
    with pytest.raises(ShardfeedError, match="start without in_memory"):
        memory.hold(split)


def test_a_shard_that_is_missing_is_named(split: Split) -> None:
    split.shard_paths[1].unlink()
    with pytest.raises(ShardfeedError, match=r"train-00001\.tar cannot be copied into memory: No such file"):
        memory.hold(split)


def test_a_shard_of_another_length_is_named(split: Split) -> None:
    os.truncate(split.shard_paths[1], 700)
    with pytest.raises(ShardfeedError, match=r"train-00001\.tar has 700 bytes"):
        memory.hold(split)


def test_who_waits_for_a_copy_that_fails_is_told_why(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that copies finds a shard missing while another one waits for it."""
    heard: list[str] = []

    def wait() -> None:
        try:
            memory._ask(memory._name(split), 0)
        except ShardfeedError as error:
            heard.append(str(error))

    waiting = threading.Thread(target=wait)

    def fails(*_: object) -> int:
        waiting.start()
        time.sleep(0.2)
        raise ShardfeedError("shard 7 is gone")

    monkeypatch.setattr(memory, "_filled", fails)
    with pytest.raises(ShardfeedError, match="shard 7 is gone"):
        memory.hold(split)
    waiting.join()
    assert heard == ["shard 7 is gone"]


def test_free_memory_is_that_of_this_machine() -> None:
    assert 2**20 < memory.available_memory() < 2**50


def test_an_empty_split_can_be_held() -> None:
    assert memory.SplitMemory(os.open("/dev/zero", os.O_RDONLY), []).shards == []


def test_shards_lie_one_after_the_other(tmp_path: Path) -> None:
    path = tmp_path / "bytes"
    path.write_bytes(bytes(range(10)))
    with path.open("rb") as file:
        held = memory.SplitMemory(file.fileno(), [3, 0, 7])
    assert [shard.tolist() for shard in held.shards] == [[0, 1, 2], [], list(range(3, 10))]
    assert np.shares_memory(held.shards[0].base, held.shards[2].base)
