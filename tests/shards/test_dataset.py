from pathlib import Path

import pytest

from shards.common.errors import ShardfeedError, UsageError
from shards.dataset import choose_split, open_dataset
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


def test_the_first_split_present_is_chosen(tmp_path: Path) -> None:
    write_split(tmp_path, [jpeg(photo(40, 50))], short_side=40, name="test")
    assert choose_split(tmp_path, ["validation", "test"]).name == "test"
    with pytest.raises(UsageError, match="no split validation: it has test"):
        choose_split(tmp_path, ["validation"])
