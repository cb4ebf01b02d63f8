"""What a tar's samples are: as webdataset groups them, and nothing but rejects and notes for tars full of nonsense."""

import io
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from webdataset.tariterators import group_by_keys, tar_file_expander

from preprocess.index.scan import Rules, Scan, scan
from shards.format.tar import Sample
from shards.format.window import Window
from tests.conftest import jpeg, photo
from tests.helpers.pictures import picture, saved
from tests.helpers.tars import tar_of

IMAGE = jpeg(photo(20, 24))
ODD = saved(picture().resize((30, 20)).quantize(4))


def scanned(data: bytes, whole: bool = True) -> tuple[Scan, list[tuple[str, Sample]]]:
    window = Window(lambda start, size: data[start : start + size], len(data), least=900, most=4000, skip=1000)
    found, cleaned = Scan(), list[tuple[str, Sample]]()
    for _ in scan(window, Rules(whole=whole), found, lambda key, sample: cleaned.append((key, sample))):
        pass
    return found, cleaned


names = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "d/a", "d.x/c", "__x__", "__m__/a"]),
        st.sampled_from(["jpg", "cls", "json", "JPG", "txt"]),
    ),
    max_size=12,
    unique=True,
)


@settings(max_examples=60)
@given(names)
def test_samples_are_those_of_webdataset(members: list[tuple[str, str]]) -> None:
    contents = {"jpg": IMAGE, "cls": b"4", "json": b'{"label": 2}', "txt": b"words"}
    data = tar_of([(f"{key}.{ending}", contents[ending.lower()]) for key, ending in members])
    files = tar_file_expander([{"url": "x", "stream": io.BytesIO(data)}])
    theirs: list[dict[str, Any]] = list(group_by_keys(files, handler=lambda error: True))
    if any(
        key == other[0] and ending.lower() == other[1].lower()
        for i, (key, ending) in enumerate(members)
        for other in members[i + 1 :]
    ):
        return  # a member that comes twice: webdataset leaves it out, here the sample is a reject
    found, cleaned = scanned(data)
    usable = [each for each in theirs if "jpg" in each and ("cls" in each or "json" in each)]
    assert found.keys == [each["__key__"] for each in usable]
    assert [row[2] for row in found.rows] == [4 if "cls" in each else 2 for each in usable]
    assert all(data[offset : offset + size] == IMAGE for offset, size, *_ in found.rows)
    assert len(found.rejects) == len(theirs) - len(usable)
    assert not cleaned


GOOD = tar_of(
    [("a.jpg", IMAGE), ("a.cls", b"1"), ("b.png", ODD), ("b.json", b'{"label": 3}'), ("c" * 150 + ".jpg", IMAGE)]
)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.binary(min_size=1, max_size=40)), max_size=6), st.booleans()
)
def test_nonsense_never_raises(changes: list[tuple[int, bytes]], whole: bool) -> None:
    data = bytearray(GOOD)
    for at, noise in changes:
        data[at : at + len(noise)] = noise
    found, _ = scanned(bytes(data[: len(GOOD)]), whole)
    for offset, size, label, width, height, _ in found.rows:
        assert offset >= 512
        assert offset + size <= len(GOOD)
        assert label >= 0
        assert width > 0 < height
    assert len(found.keys) == len(found.rows)
    assert all(reason for _, reason in found.rejects)


def test_headers_alone_give_the_same_rows_without_checksums() -> None:
    whole, head = scanned(GOOD)[0], scanned(GOOD, whole=False)[0]
    assert [row[:5] for row in whole.rows] == [row[:5] for row in head.rows]
    assert [row[5] for row in head.rows] == [0]
    assert (whole.keys, whole.kinds) == (head.keys, head.kinds)
