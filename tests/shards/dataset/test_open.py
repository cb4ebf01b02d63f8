from pathlib import Path
from typing import Any

import pytest

from shards.common.errors import ShardfeedError, UsageError
from shards.dataset import Dataset, choose_split, open_dataset
from shards.format.index import Index
from shards.format.layout import INDEX
from tests.conftest import jpeg, photo, write_split


def test_a_split_knows_its_samples_and_classes(tmp_path: Path) -> None:
    split = write_split(tmp_path, [jpeg(photo(40, 50))] * 9, short_side=40, classes=4)
    assert len(split) == 9
    assert split.labels.tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0]
    assert split.class_names == ("class 0", "class 1", "class 2", "class 3")
    assert split.keys()[8] == "00000008"
    assert [path.name for path in split.shard_paths] == ["train-00000.tar", "train-00001.tar"]


def test_an_index_of_another_length_is_refused(tmp_path: Path) -> None:
    split = write_split(tmp_path, [jpeg(photo(40, 50))] * 9, short_side=40)
    path = tmp_path / "train" / INDEX
    index = Index.read(path, keys=True)
    Index.concatenate([index, index]).write(path)
    with pytest.raises(ShardfeedError, match="18 rows, the manifest says 9"):
        _ = split.index


def test_a_directory_without_a_manifest_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a finished data set"):
        open_dataset(tmp_path)


def test_the_directory_of_a_split_is_answered_with_that_of_its_data_set(tmp_path: Path) -> None:
    """It holds tars, and the advice to index them would put files among the shards that do not belong there."""
    write_split(tmp_path, [jpeg(photo(40, 50))] * 9, short_side=40)
    with pytest.raises(UsageError, match=rf"^{tmp_path}/train is one split of the data set in {tmp_path}: give that"):
        open_dataset(tmp_path / "train")


def test_the_first_split_present_is_chosen(tmp_path: Path) -> None:
    write_split(tmp_path, [jpeg(photo(40, 50))], short_side=40, name="test")
    assert choose_split(tmp_path, ["validation", "test"]).name == "test"
    with pytest.raises(UsageError, match="no split validation: it has test"):
        choose_split(tmp_path, ["validation"])


def test_a_part_held_out_and_the_rest_are_the_whole_split(tmp_path: Path) -> None:
    split = write_split(tmp_path, [jpeg(photo(40, 50))] * 23, range(23), short_side=40, classes=23)
    rest, held = split.hold_out(0.2)
    assert (len(rest), len(held)) == (len(rest.labels), len(held.labels)) == (18, 5)
    assert sorted([*rest.labels, *held.labels]) == list(range(23))
    for part in (rest, held):
        assert list(map(int, part.keys())) == part.labels.tolist() == sorted(part.labels)
        assert part.index.shard.tolist() == [label // 7 for label in part.labels]
    assert set(held.labels) < set(split.hold_out(0.5)[1].labels)
    assert "the 20% held out of train: 5 samples" in repr(held)


@pytest.mark.parametrize(
    ("samples", "fraction"), [(1, 0.5), (5, 0.0), (5, 1.0), (5, -0.1), (5, float("nan")), (5, None), (5, "0.2")]
)
def test_nothing_is_held_out_of_one_sample_and_no_fraction(samples: int, fraction: Any, tmp_path: Path) -> None:
    split = write_split(tmp_path, [jpeg(photo(40, 50))] * samples, short_side=40)
    with pytest.raises(UsageError):
        split.hold_out(fraction)


def test_either_part_has_a_sample_whatever_the_fraction(tmp_path: Path) -> None:
    split = write_split(tmp_path, [jpeg(photo(40, 50))] * 3, short_side=40)
    assert [[len(part) for part in split.hold_out(fraction)] for fraction in (0.01, 0.99)] == [[2, 1], [1, 2]]


def test_a_damaged_index_is_found_when_a_split_is_chosen(tmp_path: Path) -> None:
    write_split(tmp_path, [jpeg(photo(40, 50))] * 3, short_side=40)
    (tmp_path / "train" / INDEX).write_bytes(b"damaged")
    with pytest.raises(ShardfeedError, match="cannot be read as an index"):
        choose_split(tmp_path, ["train"])


def test_the_split_to_validate_on_is_found_by_its_usual_names(tmp_path: Path) -> None:
    split = write_split(tmp_path, [jpeg(photo(40, 50))], short_side=40)
    assert Dataset({"train": split, "test": split.select([0]), "val": split}).validation is split
    with pytest.raises(UsageError, match=r"no split is called validation or .+ or test: the data set has train$"):
        _ = open_dataset(tmp_path).validation
