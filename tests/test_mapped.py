import mmap
from pathlib import Path

from preprocess.mapped import release


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


def test_released_memory_is_no_longer_ours_and_reads_the_same(tmp_path: Path) -> None:
    path = tmp_path / "table.arrow"
    content = bytes(range(256)) * 4096
    path.write_bytes(content)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert mapped[:] == content
        assert resident(path) == 1024
        assert release(".arrow") >= len(content)
        assert resident(path) == 0
        assert mapped[:] == content


def test_other_files_and_writable_mappings_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.arrow"
    path.write_bytes(bytes(8192))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
        mapped[:4] = b"kept"
        release(".arrow")
        release(".nothing-ends-so")
        assert mapped[:4] == b"kept"
