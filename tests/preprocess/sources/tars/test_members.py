"""The table of what lies in tars: whole archives only, and read by workers that scan nothing."""

import os
import pickle
from pathlib import Path

import pytest

from preprocess.sources.tars.members import TableOfMembers, scan
from shards.common.errors import ShardfeedError
from shards.format.members import Member
from tests.helpers.imagenet import tar


def scanned(path: Path) -> list[Member]:
    """All members of an archive."""
    with path.open("rb") as file:
        return list(scan(file, str(path)))


def test_an_archive_inside_an_archive_ends_where_it_should(tmp_path: Path) -> None:
    inner = tar({"a.jpg": b"a", "b.jpg": b"b" * 600})
    path = tmp_path / "outer.tar"
    path.write_bytes(tar({"first.tar": inner, "second.tar": tar({"c.jpg": b"c"})}))
    first = scanned(path)[0]
    with path.open("rb") as file:
        found = list(scan(file, "it", first.offset, first.offset + first.size))
    assert [member.name for member in found] == ["a.jpg", "b.jpg"]
    assert path.read_bytes()[found[1].offset :][:600] == b"b" * 600


WHOLE = tar({f"{number}.jpg": b"x" * 700 for number in range(4)})


def test_any_part_of_an_archive_is_told_from_the_whole(tmp_path: Path) -> None:
    path = tmp_path / "part.tar"
    for length in (*range(0, 4 * 1536, 256), 4 * 1536):
        path.write_bytes(WHOLE[:length])
        with pytest.raises(ShardfeedError, match=rf"ends in the middle \({length:,} bytes, no end mark\)"):
            scanned(path)


def test_a_damaged_header_is_named(tmp_path: Path) -> None:
    path = tmp_path / "damaged.tar"
    path.write_bytes(WHOLE[:1540] + b"?" + WHOLE[1541:])
    with pytest.raises(ShardfeedError, match=r"damaged.tar cannot be read: the header at byte 1,536 is damaged; copy"):
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
    table.add("a.jpg", 0, scanned(path)[0])
    os.truncate(path, 3000)
    with pytest.raises(OSError, match="the archive was cut short"):
        table.images().read(0)
