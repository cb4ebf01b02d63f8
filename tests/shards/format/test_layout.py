import pytest

from shards.common.errors import UsageError
from shards.format.layout import check_split_name, dali_index_name, extension, sample_key, shard_name, split_dir


def test_names_sort_in_the_order_of_their_numbers() -> None:
    assert shard_name("train", 17) == "train-00017.tar"
    assert dali_index_name(shard_name("train", 17)) == "train-00017.idx"
    assert sample_key(1_281_166) == "01281166"


def test_stored_images_are_named_by_what_they_are() -> None:
    assert (extension("jpeg"), extension("raw")) == ("jpg", "ppm")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "val.v2", "-x", ".work"])
def test_split_names_that_would_break_paths_or_dali_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="cannot be the name of a split"):
        split_dir("root", name)


@pytest.mark.parametrize("name", ["train", "validation", "test_v2", "2012-val"])
def test_ordinary_split_names_pass(name: str) -> None:
    assert check_split_name(name) == name
