"""Labels of tables: the same class has the same number in every split and file, or the source is refused."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from preprocess.sources import open_source
from preprocess.sources.source import Source
from shards.common.errors import UsageError
from tests.conftest import jpeg, photo

datasets = pytest.importorskip("datasets")

IMAGES = [jpeg(photo(12 + i, 16, seed=i)) for i in range(4)]


def table(words: list[str], names: list[str]) -> Any:
    """One image for each word, labelled by its place in `names`."""
    feature = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    images = [{"bytes": IMAGES[i], "path": f"{i}.jpg"} for i in range(len(words))]
    return datasets.Dataset.from_dict({"image": images, "label": [names.index(word) for word in words]}, feature)


def plain(path: Path, labels: pa.Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": pa.array(IMAGES[: len(labels)]), "label": labels}), path)


def words(source: Source, split: str) -> list[str]:
    return [source.class_names[source.row(split, row).label] for row in range(source.num_rows(split))]


def test_splits_that_list_their_classes_in_another_order_are_mapped_by_name(tmp_path: Path) -> None:
    content = {
        "train": table(["ant", "bee", "cat"], ["ant", "bee", "cat"]),
        "validation": table(["ant", "bee", "cat", "bee"], ["cat", "ant", "bee"]),
    }
    for split, each in content.items():
        (tmp_path / "parquet").mkdir(exist_ok=True)
        each.to_parquet(tmp_path / "parquet" / f"{split}-0.parquet")
    datasets.DatasetDict(content).save_to_disk(tmp_path / "saved")
    for name in ("parquet", "saved"):
        source = open_source(str(tmp_path / name))
        assert source.class_names == ("ant", "bee", "cat")
        assert words(source, "train") == ["ant", "bee", "cat"]
        assert words(source, "validation") == ["ant", "bee", "cat", "bee"]


def test_files_of_one_split_that_list_their_classes_in_another_order_are_mapped_by_name(tmp_path: Path) -> None:
    table(["ant", "bee"], ["ant", "bee"]).to_parquet(tmp_path / "train-0.parquet")
    table(["ant", "bee", "bee"], ["bee", "ant"]).to_parquet(tmp_path / "train-1.parquet")
    assert words(open_source(str(tmp_path)), "train") == ["ant", "bee", "ant", "bee", "bee"]


def test_a_class_that_one_split_lacks_is_in_the_list_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table(["ant", "cat"], ["ant", "cat"]).to_parquet(tmp_path / "train-0.parquet")
    table(["cat", "bee"], ["bee", "cat"]).to_parquet(tmp_path / "validation-0.parquet")
    source = open_source(str(tmp_path))
    assert source.class_names == ("ant", "cat", "bee")
    assert words(source, "validation") == ["cat", "bee"]
    said = capsys.readouterr().err
    assert "split train lacks 1 of 3 classes: bee\n" in said
    assert "split validation lacks 1 of 3 classes: ant\n" in said


def test_labels_beyond_the_classes_of_their_split_are_refused_though_another_has_more(tmp_path: Path) -> None:
    table(["ant", "cat"], ["ant", "bee", "cat"]).to_parquet(tmp_path / "train-0.parquet")
    path = tmp_path / "validation-0.parquet"
    table(["cat", "ant"], ["cat", "ant"]).to_parquet(path)
    content = pq.read_table(path)
    place = content.schema.get_field_index("label")
    pq.write_table(content.set_column(place, content.schema.field("label"), pa.array([0, 2], pa.int64())), path)
    with pytest.raises(UsageError, match=r"1 of 2 labels in split validation .* not among the classes"):
        open_source(str(tmp_path))


def test_names_beside_plain_numbers_or_strings_are_refused(tmp_path: Path) -> None:
    table(["ant", "bee"], ["ant", "bee"]).to_parquet(tmp_path / "train-0.parquet")
    plain(tmp_path / "train-1.parquet", pa.array([0, 1]))
    with pytest.raises(UsageError, match="class names in some files and plain labels in others"):
        open_source(str(tmp_path))
    (tmp_path / "train-1.parquet").unlink()
    plain(tmp_path / "validation-0.parquet", pa.array(["ant", "bee"]))
    with pytest.raises(UsageError, match="class names in some files and plain labels in others"):
        open_source(str(tmp_path))


def test_two_classes_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "train-01.parquet"
    table(["ant", "bee"], ["ant", "bee"]).to_parquet(path)
    content = pq.read_table(path)
    metadata = json.loads(content.schema.metadata[b"huggingface"])
    metadata["info"]["features"]["label"]["names"] = ["ant", "ant"]
    pq.write_table(content.replace_schema_metadata({"huggingface": json.dumps(metadata)}), path)
    table(["ant"], ["ant", "bee"]).to_parquet(tmp_path / "train-00.parquet")
    with pytest.raises(UsageError, match="has two classes of the same name"):
        open_source(str(tmp_path))


@pytest.mark.parametrize(
    ("labels", "names", "numbers"),
    [
        (pa.array(["b", "a", "b"], pa.large_string()), ("a", "b"), [1, 0, 1]),
        (pa.array(["b", "a", "b"]).dictionary_encode(), ("a", "b"), [1, 0, 1]),
        (pa.array([2, 0, 1]).dictionary_encode(), ("0", "1", "2"), [2, 0, 1]),
        (pa.array([1, 0, 1], pa.uint64()), ("0", "1"), [1, 0, 1]),
        (pa.array([15075141, 1440764, 15075141]), ("1440764", "15075141"), [1, 0, 1]),
    ],
)
def test_labels_of_other_types(tmp_path: Path, labels: pa.Array, names: tuple[str, ...], numbers: list[int]) -> None:
    plain(tmp_path / "train-0.parquet", labels)
    source = open_source(str(tmp_path))
    assert source.class_names == names
    assert [source.row("train", row).label for row in range(3)] == numbers


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (pa.array([0, 2**63 + 5], pa.uint64()), r"numbers above 2\^63"),
        (pa.array([True, False]), "holds bool, not labels"),
        (pa.array([[0], [1]]), "holds list.*not labels"),
        (pa.array([None, None]), "holds null, not labels"),
        (pa.array([-5, 2_000_000]), "2 different numbers, not labels"),
    ],
)
def test_labels_that_are_none_give_one_line(tmp_path: Path, labels: pa.Array, said: str) -> None:
    plain(tmp_path / "train-0.parquet", labels)
    with pytest.raises(UsageError, match=said):
        open_source(str(tmp_path))
