"""Listing the members of tars: as tarfile lists them, and one line for whatever is wrong with them."""

import io
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.format.members import Damaged, Member, members
from shards.format.window import Window
from tests.helpers.tars import tar_of

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


def listed(data: bytes, notes: list[str] | None = None) -> list[Member]:
    window = Window(lambda start, size: data[start : start + size], len(data), least=700, most=3000, skip=900)
    return list(members(window.read, len(data), [] if notes is None else notes))


def damage(data: bytes) -> str:
    with pytest.raises(Damaged) as caught:
        listed(data)
    return str(caught.value)


def with_field(data: bytes, at: int, field: bytes) -> bytes:
    """The first header with other bytes in one field, and the checksum that belongs to them."""
    block = data[:at] + field + data[at + len(field) : 512]
    total = sum(block) - sum(block[148:156]) + 8 * 32
    return block[:148] + b"%06o\0 " % total + block[156:] + data[512:]


name = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"], exclude_characters="\0/"), min_size=1)


@given(
    st.sampled_from(FORMATS),
    st.lists(st.tuples(name.map(lambda text: text[:60]), st.binary(max_size=2000)), max_size=8),
)
def test_members_are_those_that_tarfile_lists(kind: int, files: list[tuple[str, bytes]]) -> None:
    files = [(each, content) for each, content in files if len(each.encode()) <= 90 and each.strip("./") == each]
    data = tar_of(files, kind)
    found = listed(data)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        there = [(info.name, info.offset_data, info.size) for info in tar]
    assert [(each.name, each.offset, each.size) for each in found] == there
    assert [data[each.offset : each.offset + each.size] for each in found] == [content for _, content in files]


@pytest.mark.parametrize("kind", FORMATS[1:])
def test_long_names_are_whole(kind: int) -> None:
    long = "directory/" * 30 + "a" * 200 + ".jpg"
    assert [each.name for each in listed(tar_of([(long, b"x"), ("b.jpg", b"y")], kind))] == [long, "b.jpg"]


def test_a_prefix_is_part_of_the_name() -> None:
    long = "d" * 120 + "/a.jpg"
    assert [each.name for each in listed(tar_of([(long, b"x")], tarfile.USTAR_FORMAT))] == [long]


def test_links_sparse_files_and_others_are_named_and_directories_left_out(tmp_path: Path) -> None:
    with (tmp_path / "holes").open("wb") as holes:
        holes.seek(1 << 20)
        holes.write(b"end")
    (tmp_path / "a.jpg").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "b.jpg")
    (tmp_path / "c.jpg").write_bytes(b"c")
    os.link(tmp_path / "c.jpg", tmp_path / "d.jpg")
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for each in ("a.jpg", "b.jpg", "c.jpg", "d.jpg"):
            tar.add(tmp_path / each, each)
        directory = tarfile.TarInfo("inner")
        directory.type = tarfile.DIRTYPE
        tar.addfile(directory)
    kinds = {each.name: each.kind for each in listed(file.getvalue())}
    assert kinds == {"a.jpg": "a link", "b.jpg": "no ordinary file", "c.jpg": "", "d.jpg": "a link"}


@pytest.mark.parametrize("extended", ["gnu", "posix"])
def test_sparse_files_are_no_ordinary_ones(tmp_path: Path, extended: str) -> None:
    with (tmp_path / "s.jpg").open("wb") as holes:
        for place in range(0, 60 << 20, 2 << 20):  # more holes than one header names
            holes.seek(place)
            holes.write(b"data")
    (tmp_path / "t.jpg").write_bytes(b"t" * 600)
    made = os.system(f"tar --sparse --format={extended} -C {tmp_path} -cf {tmp_path}/x.tar s.jpg t.jpg 2>/dev/null")
    if made:
        pytest.skip("this machine's tar knows no sparse files")
    found = listed((tmp_path / "x.tar").read_bytes())
    assert [(each.name, each.kind) for each in found] == [("s.jpg", "stored sparse"), ("t.jpg", "")]


GOOD = tar_of([("a.jpg", b"x" * 700), ("b.jpg", b"y" * 10)])


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (GOOD[:900], "it is cut off: a.jpg at byte 512 has 700 bytes by its header"),
        (GOOD[: 3 * 512 + 100], "it is cut off at byte 1,636, inside a header"),
        (b"\x1f\x8b" + bytes(2000), "it is compressed (gzip): unpack it first"),
        (b"<html>not found</html>" * 100, "it is no tar"),
        (GOOD[: 3 * 512] + b"?" * 512 + GOOD[4 * 512 :], "the header at byte 1,536 is damaged"),
        (with_field(GOOD, 124, b"77777777777\0"), "it is cut off: a.jpg at byte 512 has 8,589,934,591 bytes"),
        (with_field(GOOD, 124, b"\x80" + b"\xff" * 11), "it is cut off: a.jpg at byte 512 has 309,4"),
        (with_field(GOOD, 124, b"\xff" * 12), "the header at byte 0 says no length that can be"),
        (with_field(GOOD, 124, b"-0000001274\0"), "the header at byte 0 says no length that can be"),
        (with_field(GOOD, 124, b"00000001_74\0"), "the header at byte 0 says no length that can be"),
        (with_field(GOOD, 156, b"L")[:600], "it is cut off at byte 600, inside a long name"),
        (with_field(with_field(GOOD, 156, b"L"), 124, b"77777777777\0"), "the long name at byte 512 has 8,589,934,591"),
        (with_field(GOOD, 156, b"x"), "the extended header at byte 0 is damaged"),
        (with_field(tar_of([("a", b"29 size=99999999999999999999\n")]), 156, b"x"), "says no length that can be"),
        (with_field(tar_of([("a", b"99999999 path=b\n")]), 156, b"x"), "the extended header at byte 0 is damaged"),
        (with_field(tar_of([("a", b"0 path=b\n")]), 156, b"x"), "the extended header at byte 0 is damaged"),
        (with_field(tar_of([("a", b"9 path=b\n")]), 156, b"g"), "at byte 0 gives all members one name or length"),
    ],
)
def test_damage_is_said_in_a_line(data: bytes, said: str) -> None:
    assert said in damage(data)


def test_what_is_odd_about_an_end_is_noted() -> None:
    notes: list[str] = []
    assert len(listed(GOOD[: 5 * 512], notes)) == 2
    assert len(listed(GOOD + GOOD, notes)) == 2
    assert len(listed(GOOD, notes)) == 2
    assert notes == [
        "it ends without the mark of a tar's end: it may have been cut off between two files",
        "17,408 bytes follow the end of the archive and are not read",
    ]


@given(st.binary(max_size=3000), st.integers(0, 4000))
def test_random_bytes_never_raise_anything_else(noise: bytes, at: int) -> None:
    for data in (noise, GOOD[:at] + noise, GOOD[: at % 1500] + noise + GOOD[at % 1500 + len(noise) :]):
        try:
            for each in listed(data):
                assert 512 <= each.offset <= len(data)
                assert each.offset + each.size <= len(data)
        except Damaged:
            pass
