"""Slices of a job, and their locks. Locks exclude processes, not threads: each holder here is a process of its own."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocess.job.slices import LOCK, SPAN, WHOLE, Slice, locked
from shards.common.errors import ShardfeedError, UsageError
from tests import ROOT

COUNTS = st.integers(1, 40)


@given(length=st.integers(0, 2000), count=st.integers(1, 300))
def test_each_item_is_in_one_slice_and_slices_differ_by_at_most_one(length: int, count: int) -> None:
    parts = [Slice(number, count).of(range(length)) for number in range(count)]
    assert [item for part in parts for item in part] == list(range(length))
    lengths = [len(part) for part in parts]
    assert max(lengths) - min(lengths) <= 1


@given(data=st.data(), length=st.integers(1, 500), counts=st.tuples(COUNTS, COUNTS))
def test_slices_that_share_a_shard_lock_the_same_bytes_whatever_their_counts(
    data: st.DataObject, length: int, counts: tuple[int, int]
) -> None:
    first, second = (Slice(data.draw(st.integers(0, count - 1)), count) for count in counts)
    if set(first.of(range(length))) & set(second.of(range(length))):
        (start, end), (other_start, other_end) = first.span(SPAN), second.span(SPAN)
        assert start < other_end
        assert other_start < end


def test_the_whole_is_all_of_it() -> None:
    assert WHOLE.of("abc") == "abc"


def test_a_slice_is_read_as_it_is_written() -> None:
    assert Slice.parse("3/8") == Slice(3, 8)
    assert str(Slice(3, 8)) == "3/8"


@pytest.mark.parametrize("text", ["", "3", "8/8", "0/0", "-1/4", "1/4/2", "a/b", "1 /4"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=f"--tasks {text}:"):
        Slice.parse(text)


HOLD = """
import sys, time
from pathlib import Path
from preprocess.job.slices import Slice, locked
with locked(Path(sys.argv[1]), Slice.parse(sys.argv[2])):
    print("held", flush=True)
    time.sleep(600)
"""


@contextmanager
def held_by_another(work: Path, part: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(work), part], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        yield holder
        holder.kill()


def test_what_another_process_holds_is_refused_and_named(tmp_path: Path) -> None:
    with held_by_another(tmp_path / "out" / ".work", "0/1") as holder:
        message = f"another job is at work on {tmp_path / 'out'} \\(process {holder.pid}\\)"
        with pytest.raises(ShardfeedError, match=message), locked(tmp_path / "out" / ".work"):
            pass


@pytest.mark.parametrize(
    ("held", "wanted", "allowed"),
    [
        ("0/4", "1/4", True),
        ("1/4", "3/4", True),
        ("1/2", "0/4", True),
        ("0/4", "0/4", False),
        ("0/4", "0/1", False),
        ("0/1", "2/4", False),
        ("1/2", "3/4", False),
    ],
)
def test_slices_exclude_what_overlaps_them(tmp_path: Path, held: str, wanted: str, allowed: bool) -> None:
    work = tmp_path / ".work"
    with held_by_another(work, held):
        if allowed:
            with locked(work, Slice.parse(wanted)):
                pass
            return
        with pytest.raises(ShardfeedError, match="another job is at work"), locked(work, Slice.parse(wanted)):
            pass


def test_a_job_that_came_to_nothing_leaves_nothing(tmp_path: Path) -> None:
    with locked(tmp_path / "out" / ".work"):
        pass
    assert not (tmp_path / "out").exists()


def test_the_file_stays_while_another_slice_holds_it(tmp_path: Path) -> None:
    work = tmp_path / ".work"
    with held_by_another(work, "0/2"):
        with locked(work, Slice(1, 2)):
            pass
        assert (work / LOCK).exists()
        with pytest.raises(ShardfeedError), locked(work, WHOLE):
            pass


def test_what_a_job_left_stays(tmp_path: Path) -> None:
    with locked(tmp_path / ".work"):
        (tmp_path / ".work" / "plan.json").touch()
    assert (tmp_path / ".work" / "plan.json").exists()


def test_a_file_that_was_removed_in_between_is_not_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = tmp_path / ".work"
    opened = os.open
    calls: list[Path] = []

    def open_and_lose(path: Path, *rest: int) -> int:
        descriptor = opened(path, *rest)
        if not calls:
            path.unlink()  # what a job that ends at this moment does
        calls.append(path)
        return descriptor

    monkeypatch.setattr(os, "open", open_and_lose)
    with locked(work):
        assert len(calls) == 2
        assert (work / LOCK).exists()
