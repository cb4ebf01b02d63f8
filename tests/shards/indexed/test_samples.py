"""Which members of a tar are one sample. tests/preprocess/index/test_scan.py compares them with webdataset's own."""

import pytest

from shards.format.members import Member
from shards.indexed.samples import Part, divided, samples


def grouped(*names: str) -> list[tuple[str, list[str]]]:
    several = [(each, divided(each)) for each in names]
    parts = [(pair[0], Part(pair[1], Member(name, 0, 0, ""))) for name, pair in several if pair]
    return [(key, [part.ending for part in found]) for key, found in samples(parts)]


def test_a_sample_is_consecutive_members_of_one_key_up_to_the_first_dot() -> None:
    assert grouped("x/1.a.cls", "x/1.JPG", "x/1.cls", "x.y/2.seg.png", "x.y/2.jpeg", "1.webp", "2.cls", "1.cls") == [
        ("x/1", ["a.cls", "jpg", "cls"]),
        ("x.y/2", ["seg.png", "jpeg"]),
        *[("1", ["webp"]), ("2", ["cls"]), ("1", ["cls"])],
    ]


def test_where_no_extension_is_that_of_an_image_the_last_dot_counts() -> None:
    assert grouped("v_1.n01.jpg", "v_1.n01.cls", "v_1.n02.jpg") == [("v_1.n01", ["jpg", "cls"]), ("v_1.n02", ["jpg"])]


@pytest.mark.parametrize("name", ["no-ending", "x.y/none", ".jpg", "a.", "__meta__/1.txt", "__key__"])
def test_some_names_are_in_no_sample(name: str) -> None:
    assert divided(name) is None
