"""The sources on disk and on the hub: every layout gives the same rows, and every mistake one line."""

import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from preprocess.sources import hf_dataset, local_path, open_source, tables
from preprocess.sources.source import Source
from shards.common.errors import UsageError
from tests.conftest import SHARED, decoded, jpeg, photo
from tests.helpers.jobs import write_files

datasets = pytest.importorskip("datasets")

IMAGES = [jpeg(photo(12 + i, 16, seed=i)) for i in range(6)]
LABELS = [0, 1, 2, 2, 1, 0]
NAMES = ["ant", "bee", "cat"]


def table(labels: list[Any] = LABELS, label_feature: Any = None, image: str = "image", label: str = "label") -> Any:
    columns = {image: [{"bytes": data, "path": f"{i}.jpg"} for i, data in enumerate(IMAGES)], label: labels}
    feature = label_feature or datasets.ClassLabel(names=NAMES)
    features = datasets.Features({image: datasets.Image(), label: feature})
    return datasets.Dataset.from_dict(columns, features=features)


def parquet(root: Path, **splits: Any) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for split, content in splits.items():
        content.to_parquet(root / f"{split}-00000-of-00001.parquet")
    return root


def folder(root: Path) -> Path:
    rows = enumerate(zip(IMAGES, LABELS, strict=True))
    return write_files(root, {f"train/{NAMES[label]}/{i}.JPEG": data for i, (data, label) in rows})


def contents(source: Source, split: str = "train") -> list[tuple[bytes, str]]:
    rows = [source.row(split, i) for i in range(source.num_rows(split))]
    return sorted((row.data, source.class_names[row.label]) for row in rows)


EXPECTED = sorted((data, NAMES[label]) for data, label in zip(IMAGES, LABELS, strict=True))


def layouts(root: Path) -> Iterator[Path]:
    yield parquet(root / "hub" / "data", train=table()).parent
    yield parquet(root / "flat", train=table())
    table().save_to_disk(root / "one")
    yield root / "one"
    datasets.DatasetDict({"train": table()}).save_to_disk(root / "dict")
    yield root / "dict"
    yield folder(root / "folder")


def test_every_local_layout_gives_the_same_images_and_class_names(tmp_path: Path) -> None:
    for path in layouts(tmp_path):
        source = open_source(str(path))
        assert (source.name, source.splits, source.class_names) == (str(path), ("train",), tuple(NAMES))
        assert contents(source) == EXPECTED


def test_the_fingerprint_is_of_the_content_and_not_of_the_place(tmp_path: Path) -> None:
    tables = [open_source(str(path)).fingerprint for path in list(layouts(tmp_path))[:4]]
    assert len(set(tables)) == 1
    other = open_source(str(parquet(tmp_path / "other", train=table([1, 1, 2, 2, 1, 0]))))
    assert other.fingerprint != tables[0]


def test_the_fingerprint_sees_a_changed_image_of_the_same_length(tmp_path: Path) -> None:
    path = folder(tmp_path) / "train" / "bee" / "1.JPEG"
    before = open_source(str(tmp_path)).fingerprint
    data = bytearray(path.read_bytes())
    data[-10] ^= 1
    path.write_bytes(data)
    assert open_source(str(tmp_path)).fingerprint != before


def test_several_files_are_one_split_and_their_names_give_it(tmp_path: Path) -> None:
    table().select(range(4)).to_parquet(tmp_path / "train-00000-of-00002.parquet")
    table().select(range(4, 6)).to_parquet(tmp_path / "train-00001-of-00002.parquet")
    table().to_parquet(tmp_path / "validation-00000-of-00001.parquet")
    source = open_source(str(tmp_path))
    assert {split: source.num_rows(split) for split in source.splits} == {"train": 6, "validation": 6}


def test_columns_of_any_name(tmp_path: Path) -> None:
    path = parquet(tmp_path, train=table(image="img", label="fine"))
    assert contents(open_source(str(path), None, "img", "fine")) == EXPECTED


@pytest.mark.parametrize(("image", "label", "missing"), [("image", "fine", "image"), ("img", "label", "label")])
def test_a_missing_column_lists_those_there_are(tmp_path: Path, image: str, label: str, missing: str) -> None:
    path = parquet(tmp_path, train=table(image="img", label="fine"))
    with pytest.raises(UsageError, match=f"no column {missing}: it has img, fine; .*--{missing}-column"):
        open_source(str(path), None, image, label)


def test_labels_that_are_words_become_sorted_classes(tmp_path: Path) -> None:
    words = table([NAMES[label] for label in LABELS], datasets.Value("string"))
    assert contents(open_source(str(parquet(tmp_path, train=words)))) == EXPECTED


def test_labels_that_are_plain_numbers_are_named_by_them(tmp_path: Path) -> None:
    source = open_source(str(parquet(tmp_path, train=table([5, 0, 0, 1, 2, 2], datasets.Value("int16")))))
    assert source.class_names == ("0", "1", "2", "3", "4", "5")
    assert [source.row("train", i).label for i in range(6)] == [5, 0, 0, 1, 2, 2]


def test_a_column_that_is_no_label_is_refused(tmp_path: Path) -> None:
    path = parquet(tmp_path, train=table([0.5] * 6, datasets.Value("float32")))
    with pytest.raises(UsageError, match="holds float, not labels"):
        open_source(str(path))


def test_a_column_that_is_no_image_is_refused(tmp_path: Path) -> None:
    path = parquet(tmp_path, train=table())
    with pytest.raises(UsageError, match=r"column label of .* not images"):
        open_source(str(path), image_column="label")


def by_path(root: Path, paths: list[Path | str]) -> str:
    """A directory of parquet whose images are given by their paths."""
    root.mkdir(exist_ok=True)
    pq.write_table(pa.table({"image": list(map(str, paths)), "label": [0] * len(paths)}), root / "train-0.parquet")
    return str(root)


def test_images_given_by_path_are_read_below_the_source(tmp_path: Path) -> None:
    files = sorted(folder(tmp_path / "set" / "files").rglob("*.JPEG"))
    relative = [file.relative_to(tmp_path / "set") for file in files]
    source = open_source(by_path(tmp_path / "set", [*files, *relative]))
    read = [source.row("train", row).data for row in range(12)]
    assert read == [file.read_bytes() for file in files] * 2


@pytest.mark.parametrize("kind", ["absolute", "relative", "link", "pipe", "device"])
def test_images_given_by_path_are_nothing_else(tmp_path: Path, kind: str) -> None:
    private = tmp_path / "private.jpg"
    private.write_bytes(IMAGES[0])
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "link.jpg").symlink_to(private)
    os.mkfifo(tmp_path / "set" / "pipe.jpg")
    paths: dict[str, Path | str] = {
        "absolute": private,
        "relative": "../private.jpg",
        "link": "link.jpg",
        "pipe": "pipe.jpg",
    }
    source = open_source(by_path(tmp_path / "set", [paths.get(kind, "/dev/zero")]))
    with pytest.raises(PermissionError, match=r"does not lie below the source|no regular file"):
        source.row("train", 0)


def test_a_data_set_of_the_hub_names_no_files_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private = tmp_path / "private.jpg"
    private.write_bytes(IMAGES[0])
    content = datasets.Dataset.from_dict({"image": [str(private)], "label": [0]}).cast_column("image", datasets.Image())
    monkeypatch.setattr(tables, "load_hub", lambda name, splits: {"train": content})
    with pytest.raises(PermissionError, match="does not lie below the source"):
        open_source("owner/set").row("train", 0)


def test_asking_for_hidden_labels_says_why_not(tmp_path: Path) -> None:
    path = parquet(tmp_path, train=table(), test=table([0, -1, -1, -1, -1, -1]))
    with pytest.raises(
        UsageError, match=r"5 of 6 labels in split test .*row 1 has -1; -1 is how the hub marks .*--splits train"
    ):
        open_source(str(path), ["train", "test"])


HIDDEN = (
    r"3 of 6 labels in split test .* \(row 1 has -1; -1 is how the hub marks labels that are kept secret, as in test"
)


def test_hidden_labels_are_refused_with_the_reason_whatever_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = datasets.DatasetDict({"train": table(), "test": table([0, -1, -1, 1, 2, -1])})
    some.save_to_disk(tmp_path / "saved")
    parquet(tmp_path / "parquet" / "data", **some)
    plain = {name: content.cast_column("label", datasets.Value("int64")) for name, content in some.items()}
    parquet(tmp_path / "numbers", **plain)
    absent = some["test"].map(lambda row: {"label": row["label"] if row["label"] >= 0 else None})
    parquet(tmp_path / "nulls", train=table(), test=absent)
    monkeypatch.setattr(tables, "load_hub", lambda name, splits: some)
    for name in (*map(str, tmp_path.iterdir()), "owner/set"):
        with pytest.raises(UsageError, match=HIDDEN):
            open_source(name)


def test_the_hubs_own_test_split_is_left_out_and_refused_when_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in ILSVRC/imagenet-1k, where all labels of test are -1."""
    whole = datasets.DatasetDict({"train": table(), "test": table([-1] * 6)})
    monkeypatch.setattr(tables, "load_hub", lambda name, splits: whole)
    assert open_source("owner/set").splits == ("train",)
    assert "leaving out split test: it has no labels" in capsys.readouterr().err
    with pytest.raises(UsageError, match=r"6 of 6 labels in split test .*kept secret"):
        open_source("owner/set", ["train", "test"])


@pytest.mark.parametrize("wrong", [3, 99, -2])
def test_labels_beyond_the_classes_are_refused(tmp_path: Path, wrong: int) -> None:
    path = parquet(tmp_path, train=table()) / "train-00000-of-00001.parquet"
    content = pq.read_table(path)
    place = content.schema.get_field_index("label")
    values = pa.array([0, 1, wrong, 2, wrong, 0], pa.int64())
    pq.write_table(content.set_column(place, content.schema.field("label"), values), path)
    expected = rf"2 of 6 labels in split train .* not among the classes 0 to 2 \(row 2 has {wrong}\)"
    with pytest.raises(UsageError, match=expected):
        open_source(str(tmp_path))


def test_an_unlabelled_folder_is_refused_when_asked_for(tmp_path: Path) -> None:
    folder(tmp_path)
    write_files(tmp_path, {"test/1.jpg": IMAGES[0]})
    with pytest.raises(UsageError, match=r"1 of 1 labels in split test .*kept secret"):
        open_source(str(tmp_path), ["train", "test"])


def test_rows_are_read_from_every_chunk_and_missing_images_are_empty(tmp_path: Path) -> None:
    rows = [{"bytes": data, "path": f"{i}.jpg"} for i, data in enumerate(IMAGES)]
    parts = [
        datasets.Dataset.from_dict(
            {"image": part, "label": [0] * len(part)},
            features=datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["ant"])}),
        )
        for part in (rows[:2], [None, {"bytes": b"", "path": "empty.jpg"}], rows[2:])
    ]
    datasets.concatenate_datasets(parts).save_to_disk(tmp_path / "saved", num_shards=4)
    source = open_source(str(tmp_path / "saved"))
    read = [source.row("train", i) for i in range(8)]
    assert [row.data for row in read] == [*IMAGES[:2], b"", b"", *IMAGES[2:]]
    assert [row.path for row in read[1:5]] == ["1.jpg", "train row 2", "empty.jpg", "2.jpg"]


def test_images_are_read_from_their_file_and_not_through_the_mapping(tmp_path: Path) -> None:
    rows = [{"bytes": bytes([row]) * 300_000, "path": None} for row in range(12)]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["ant"])})
    datasets.Dataset.from_dict({"image": rows, "label": [0] * 12}, features=features).save_to_disk(tmp_path / "saved")
    source = open_source(str(tmp_path / "saved"))
    assert source.row("train", 0).data == bytes(300_000)
    (file,) = (tmp_path / "saved").glob("*.arrow")
    os.truncate(file, 50_000)
    with pytest.raises(OSError, match="cut short"):
        source.row("train", 11)


def test_absent_splits_list_those_there_are(tmp_path: Path) -> None:
    path = parquet(tmp_path, train=table())
    with pytest.raises(UsageError, match="no split val: it has train"):
        open_source(str(path), ["val"])


def test_chosen_splits_come_alone_in_the_order_asked_for(tmp_path: Path) -> None:
    path = parquet(tmp_path, a=table(), b=table(), c=table())
    assert open_source(str(path), ["c", "a"]).splits == ("c", "a")
    assert open_source("synthetic:train=5,validation=5", ["validation"]).splits == ("validation",)


def test_an_unlabelled_folder_is_left_out(tmp_path: Path) -> None:
    folder(tmp_path)
    write_files(tmp_path, {"test/1.jpg": IMAGES[0]})
    assert open_source(str(tmp_path)).splits == ("train",)


def test_a_directory_of_something_else_says_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    with pytest.raises(UsageError, match="neither parquet files"):
        open_source(str(tmp_path))


def test_sources_pickle_small_and_work_on_the_other_side(tmp_path: Path) -> None:
    for path in layouts(tmp_path):
        pickled = pickle.dumps(open_source(str(path)))
        assert len(pickled) < 4000 + sum(map(len, IMAGES)) / 4
        assert contents(pickle.loads(pickled)) == EXPECTED


def test_the_naive_path_reads_the_same_pictures(tmp_path: Path) -> None:
    for path in layouts(tmp_path):
        source = open_source(str(path))
        content = hf_dataset(str(path), "train")
        assert content.features["label"].names == NAMES
        for i, row in enumerate(content):
            assert row["label"] == source.row("train", i).label
            assert np.array_equal(np.asarray(row["image"].convert("RGB")), decoded(source.row("train", i).data))


def test_made_up_images_are_no_baseline() -> None:
    with pytest.raises(UsageError, match=r"preprocess.synthetic"):
        hf_dataset("synthetic:train=5", "train")


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "~/nowhere-at-all", "a/b/c", ".hidden"])
def test_what_looks_like_a_path_is_never_looked_up_on_the_hub(name: str) -> None:
    with pytest.raises(UsageError, match="there is no directory"):
        local_path(name)


def test_a_file_is_no_source(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        local_path(str(tmp_path / "file"))


@pytest.mark.skipif(not (SHARED / "cifar10-jpeg").is_dir(), reason="the real images are not here")
def test_the_real_cifar10_opens_with_its_class_names() -> None:
    source = open_source(str(SHARED / "cifar10-jpeg"), ["test"], "img")
    assert source.num_rows("test") == 2000
    assert source.class_names[:3] == ("airplane", "automobile", "bird")
