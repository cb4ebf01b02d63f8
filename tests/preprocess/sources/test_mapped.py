"""Mapped files are read through the file: not touched, not kept in memory, and without a signal where they fail."""

import contextlib
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from preprocess.sources.mapped import OPEN, Mapping, mapping_of, mappings, read_at_random, release

CONTENT = bytes(range(256)) * 4096


def resident(path: Path) -> int:
    """Kilobytes of a mapped file that count as this process's memory."""
    total, ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        words = line.split()
        if "-" in words[0] and len(words) >= 5:
            ours = line.endswith(str(path))
        elif ours and words[0] == "Rss:":
            total += int(words[1])
    return total


@contextlib.contextmanager
def mapped(path: Path, content: bytes = CONTENT) -> Iterator[mmap.mmap]:
    path.write_bytes(content)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as memory:
        yield memory


def only(path: Path) -> Mapping:
    (found,) = (mapping for mapping in mappings(".arrow") if mapping.path == str(path))
    return found


def test_what_is_mapped_is_read_without_being_touched(tmp_path: Path) -> None:
    path = tmp_path / "table.arrow"
    with mapped(path) as memory:
        found = only(path)
        assert found.end - found.start == len(CONTENT)
        assert found.read(found.start + 5000, 300_000) == CONTENT[5000:305_000]
        assert resident(path) == 0
        assert memory[5000] == CONTENT[5000]


def test_a_part_of_a_file_that_is_mapped_is_found_in_it(tmp_path: Path) -> None:
    path = tmp_path / "table.arrow"
    path.write_bytes(CONTENT)
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 8192, prot=mmap.PROT_READ, offset=mmap.ALLOCATIONGRANULARITY),
    ):
        found = only(path)
        assert found.read(found.start + 3, 700) == CONTENT[mmap.ALLOCATIONGRANULARITY + 3 :][:700]


def test_addresses_are_found_in_their_mapping_alone(tmp_path: Path) -> None:
    with mapped(tmp_path / "a.arrow"), mapped(tmp_path / "b.arrow"):
        among = mappings(".arrow")
        for mapping in among:
            assert mapping_of(mapping.start, 10, among) is mapping
            assert mapping_of(mapping.end - 10, 10, among) is mapping
        first = only(tmp_path / "a.arrow")
        assert mapping_of(first.start - 10, 20, [first]) is None
        assert mapping_of(first.end - 10, 20, [first]) is None
        assert mapping_of(first.end, 1, []) is None


def test_a_file_that_was_cut_short_is_an_error_and_not_a_signal(tmp_path: Path) -> None:
    path = tmp_path / "table.arrow"
    with mapped(path):
        found = only(path)
        os.truncate(path, 4096)
        with pytest.raises(OSError, match="cut short"):
            found.read(found.start + 4000, 200)


@pytest.mark.parametrize("other", [None, b"another"])
def test_a_file_that_was_removed_or_replaced_reads_as_it_was(tmp_path: Path, other: bytes | None) -> None:
    path = tmp_path / "table.arrow"
    with mapped(path):
        found = only(path)
        path.unlink()
        if other is not None:
            path.write_bytes(other * 1000)
        assert found.read(found.start + 3, 400) == CONTENT[3:403]


def test_no_more_files_are_open_than_are_allowed(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        for number in range(OPEN + 40):
            stack.enter_context(mapped(tmp_path / f"{number:03d}.arrow", bytes([number]) * 100))
        among = [mapping for mapping in mappings(".arrow") if mapping.path.startswith(str(tmp_path))]
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        for _ in range(2):
            for mapping in among:
                assert mapping.read(mapping.start, 100) == bytes([int(Path(mapping.path).stem)]) * 100
        assert len(os.listdir("/proc/self/fd")) - before <= OPEN  # noqa: PTH208


def test_released_memory_is_no_longer_ours_and_reads_the_same(tmp_path: Path) -> None:
    path = tmp_path / "table.arrow"
    with mapped(path) as memory:
        read_at_random(".arrow")
        assert memory[:] == CONTENT
        assert resident(path) == 1024
        release(".arrow")
        assert resident(path) == 0
        assert memory[:] == CONTENT


def test_other_files_and_writable_mappings_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.arrow"
    path.write_bytes(bytes(8192))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as memory:
        memory[:4] = b"kept"
        release(".arrow")
        release(".nothing-ends-so")
        assert memory[:4] == b"kept"
