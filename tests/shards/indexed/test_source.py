"""What names tars of others, which split each is of, and where its index is looked for."""

from pathlib import Path

import pytest

from shards.common.errors import UsageError
from shards.format.layout import is_place
from shards.indexed.find import beside, in_cache
from shards.indexed.source import common_directory, expanded, identity, index_name, names_tars, open_source, split_of


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("imagenet1k-train-0000.tar", "train"),
        ("imagenet1k-validation-07.tar", "validation"),
        ("imagenet22k_val_0.tar", "val"),
        ("training/00000.tar", "train"),
        ("my-set/00000.tar", "my-set"),
        ("00000.tar", "train"),
        ("train-of-thought-test-3.tar", "test"),
        ("constrained-1.tar", "train"),
    ],
)
def test_names_of_tars_tell_their_split(name: str, split: str) -> None:
    assert split_of(name) == split


def test_patterns_expand_as_in_webdataset() -> None:
    assert expanded("a-{08..11}.tar::b-{x,y}.tar") == [
        *("a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar", "b-x.tar", "b-y.tar"),
    ]


def test_the_same_source_has_the_same_index_however_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert identity("x/../a-{0..3}.tar") == identity(tmp_path / "a-{0..3}.tar")
    assert identity("S3://bucket/a/") == identity("s3://bucket/a")
    assert index_name("a-{0..3}.tar") != index_name("a-{0..4}.tar")
    assert beside("a-{0..3}.tar") == tmp_path / index_name("a-{0..3}.tar")
    assert beside("s3://bucket/a-{0..3}.tar") is None
    assert in_cache("a", tmp_path) == in_cache(tmp_path / "a", tmp_path)


def test_a_directory_whose_name_looks_like_a_pattern_is_a_directory(tmp_path: Path) -> None:
    (tmp_path / "a{b}.tar").mkdir()
    assert not names_tars(tmp_path / "a{b}.tar")
    assert names_tars(tmp_path / "c.tar")
    assert names_tars("hf://datasets/timm/imagenet-1k-wds/x-{00..63}.tar")


def test_tars_of_several_directories_have_a_common_one() -> None:
    assert common_directory(["/a/b/0.tar", "/a/c/0.tar"]) == "/a"
    assert common_directory(["s3://k/a/b/0.tar", "s3://k/a/c/b/1.tar"]) == "s3://k/a"
    with pytest.raises(UsageError, match="in one store"):
        common_directory(["s3://k/0.tar", "s3://l/0.tar"])


def test_subdirectories_are_splits_and_our_own_shards_are_passed_over(tmp_path: Path) -> None:
    for name in ("train/0.tar", "eval/0.tar", "train-cleaned/train-cleaned-00000.tar"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    source = open_source(tmp_path)
    assert {split: [tar.name for tar in tars] for split, tars in source.splits.items()} == {
        "train": ["train/0.tar"],
        "validation": ["eval/0.tar"],
    }


@pytest.mark.parametrize(
    ("place", "possible"),
    [
        ("a.tar", True),
        ("../a.tar", True),
        ("/data/a.tar", True),
        ("https://host/a.tar", True),
        ("", False),
        ("../../a.tar", False),
        ("a/../../b.tar", False),
        ("a\n.tar", False),
        ("a\x1b[31m.tar", False),
        ("a" * 5000, False),
    ],
)
def test_places_in_a_manifest_lead_out_of_it_by_one_step_at_most(place: str, possible: bool) -> None:
    assert is_place(place) == possible
