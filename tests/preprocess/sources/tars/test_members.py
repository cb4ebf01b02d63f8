"""The table of what lies in a tar, beside `tarfile`."""

import io
import os
import pickle
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.sources.tars.members import Member, TableOfMembers, scan
from shards.common.errors import ShardfeedError
from tests.helpers.imagenet import tar

FORMATS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0\n/"), min_size=1, max_size=130)


def scanned(path: Path) -> list[Member]:
    """All members of an archive."""
    with path.open("rb") as file:
        return list(scan(file, str(path)))


def by_tarfile(path: Path) -> list[Member]:
    """The same by the standard library."""
    with tarfile.open(path, encoding="utf-8", errors="surrogateescape") as archive:
        return [
            Member(info.name.encode("utf-8", "surrogateescape"), info.offset_data, info.size, info.isreg())
            for info in archive
            if not info.isdir()
        ]


@settings(max_examples=40)
@given(
    st.lists(st.tuples(NAMES, st.integers(0, 1500), st.sampled_from([0, 1.5, 2])), max_size=6), st.sampled_from(FORMATS)
)
def test_members_are_those_of_tarfile(
    tmp_path_factory: pytest.TempPathFactory, files: list[tuple[str, int, float]], kind: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "members.tar"
    with tarfile.open(path, "w", format=kind) as archive:
        for name, size, time in files:
            info = tarfile.TarInfo(name if kind != tarfile.USTAR_FORMAT else name.encode("utf-8")[:90].hex()[:90])
            info.size, info.mtime = size, time if kind == tarfile.PAX_FORMAT else int(time)
            archive.addfile(info, io.BytesIO(os.urandom(size)))
    assert scanned(path) == by_tarfile(path)


def test_links_directories_and_long_names(tmp_path: Path) -> None:
    path = tmp_path / "odd.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        for name, kind in (("d", tarfile.DIRTYPE), ("l", tarfile.SYMTYPE), ("x" * 300, tarfile.REGTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "t" * 200 if kind == tarfile.SYMTYPE else ""
            archive.addfile(info)
    assert scanned(path) == by_tarfile(path)
    assert [member.regular for member in scanned(path)] == [False, True]


def test_an_archive_inside_an_archive_ends_where_it_should(tmp_path: Path) -> None:
    inner = tar({"a.jpg": b"a", "b.jpg": b"b" * 600})
    path = tmp_path / "outer.tar"
    path.write_bytes(tar({"first.tar": inner, "second.tar": tar({"c.jpg": b"c"})}))
    first = scanned(path)[0]
    with path.open("rb") as file:
        found = list(scan(file, "it", first.offset, first.offset + first.size))
    assert [member.name for member in found] == [b"a.jpg", b"b.jpg"]
    assert path.read_bytes()[found[1].offset :][:600] == b"b" * 600


WHOLE = tar({f"{number}.jpg": b"x" * 700 for number in range(4)})


@pytest.mark.parametrize("length", [*range(0, 4 * 1536, 256), 4 * 1536])
def test_any_part_of_an_archive_is_told_from_the_whole(tmp_path: Path, length: int) -> None:
    path = tmp_path / "part.tar"
    path.write_bytes(WHOLE[:length])
    with pytest.raises(ShardfeedError, match=r"ends in the middle \([\d,]+ bytes, no end mark\)"):
        scanned(path)


@pytest.mark.parametrize("at", range(0, 400, 7))
def test_a_damaged_header_is_noticed(tmp_path: Path, at: int) -> None:
    path = tmp_path / "damaged.tar"
    path.write_bytes(WHOLE[: 1536 + at] + bytes([WHOLE[1536 + at] ^ 1]) + WHOLE[1536 + at + 1 :])
    with pytest.raises(ShardfeedError, match="is damaged at byte 1,536"):
        scanned(path)


def test_a_huge_extended_header_is_not_read(tmp_path: Path) -> None:
    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size = tarfile.XHDTYPE, 1 << 32
    path = tmp_path / "huge.tar"
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
    with pytest.raises(ShardfeedError, match="describes the next one is damaged or too long"):
        scanned(path)


def test_images_are_read_by_workers_that_scan_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [tmp_path / "a.tar", tmp_path / "b.tar"]
    for path in paths:
        path.write_bytes(
            tar({f"{path.stem}{number}.jpg": f"{path.stem}{number}".encode() * 300 for number in range(3)})
        )
    table = TableOfMembers(paths)
    for number, path in enumerate(paths):
        for member in scanned(path):
            table.add(member.name, number, member)
    images = table.images()
    assert images.read(5) == (b"b2" * 300, "b2.jpg")
    monkeypatch.setattr("preprocess.sources.tars.members.scan", None)
    there = pickle.loads(pickle.dumps(images))
    assert [there.read(row) for row in (4, 0, 3)] == [images.read(row) for row in (4, 0, 3)]
    assert there.lengths().tolist() == [600] * 6


def test_an_archive_that_was_cut_short_meanwhile_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(tar({"a.jpg": b"a" * 5000}))
    table = TableOfMembers([path])
    table.add(b"a.jpg", 0, scanned(path)[0])
    os.truncate(path, 3000)
    with pytest.raises(OSError, match="the archive was cut short"):
        table.images().read(0)
