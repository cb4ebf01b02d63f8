"""Parts of a split: chosen by id, class, fraction, or a file of names; under other classes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards import Loader
from shards.common.errors import UsageError
from shards.dataset import Split
from shards.dataset.parts import balanced_rows, chosen_rows
from tests.conftest import jpeg, photo, write_split

COUNT, CLASSES = 23, 5


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    images = [jpeg(photo(16, 16, seed)) for seed in range(COUNT)]
    return write_split(tmp_path_factory.mktemp("data"), images, short_side=16, classes=CLASSES)


def text(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def numbers(part: Split) -> list[int]:
    """The rows of the whole split that a part shows, by its keys."""
    return list(map(int, part.keys()))


@given(st.sets(st.integers(0, 49), min_size=1), st.randoms())
def test_ids_select_whatever_their_order_and_form(ids: set[int], random: Any) -> None:
    shuffled = random.sample(sorted(ids), len(ids))
    mask = np.isin(np.arange(50), shuffled)
    for form in (shuffled, np.array(shuffled, np.uint16), mask):
        assert chosen_rows(form, 50).tolist() == sorted(ids)


@pytest.mark.parametrize(
    ("ids", "told"),
    [
        ([], "it is empty"),
        ([3, 50], "there is no sample 50: the ids are 0 to 49"),
        ([-1], "there is no sample -1"),
        ([3, 4, 3], "the sample 3 is selected twice"),
        ([0.5], "a selection must be sample ids, or a mask of 50 samples"),
        ([True, False], "a mask of 50 samples"),
        ([[1, 2]], "a selection must be"),
        ([[1], [2, 3]], "a selection must be"),
        ("first", "a selection must be"),
        (None, "a selection must be"),
    ],
)
def test_what_selects_nothing_is_refused(ids: Any, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        chosen_rows(ids, 50)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=80), st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_a_fraction_takes_as_much_of_each_class_and_a_larger_one_the_same_and_more(
    labels: list[int], one: float, other: float
) -> None:
    array = np.array(labels, np.int32)
    small, large = (balanced_rows(array, fraction) for fraction in sorted((one, other)))
    assert np.isin(small, large).all()
    assert (np.diff(large) > 0).all()
    for label in set(labels):
        assert (array[small] == label).sum() == max(1, round(labels.count(label) * min(one, other)))


def test_a_fraction_chooses_the_same_samples_on_every_machine() -> None:
    labels = np.arange(1000, dtype=np.int32) % 10
    assert balanced_rows(labels, 0.01).tolist() == [36, 425, 510, 594, 599, 628, 713, 717, 811, 962]


def test_a_part_of_a_part_is_counted_in_the_rows_of_the_whole(split: Split) -> None:
    part = split.select(range(3, 20)).select([0, 5, 16])
    assert numbers(part) == [3, 8, 19]
    assert part.labels.tolist() == [3, 3, 4]
    assert repr(part).startswith("<Split a part of a part of train: 3 samples")
    rest, held = split.select(range(3, 20)).hold_out(0.25)
    assert sorted(numbers(rest) + numbers(held)) == list(range(3, 20))


@pytest.mark.parametrize("classes", [["class 3", "class 1"], [1, 3], np.array([3, 1])])
def test_classes_are_numbered_anew_in_their_order(split: Split, classes: Any) -> None:
    part = split.where(classes)
    assert part.class_names == ("class 1", "class 3")
    assert numbers(part) == [row for row in range(COUNT) if row % CLASSES in (1, 3)]
    assert part.labels.tolist() == [int(row % CLASSES == 3) for row in numbers(part)]
    assert part.where(["class 3"]).class_names == ("class 3",)
    assert set(part.where(["class 3"]).labels) == {0}


@pytest.mark.parametrize(
    ("classes", "told"),
    [
        (["class 9"], "there is no class 'class 9': the data set has class 0, class 1, class 2, ..."),
        ([5], "the number of a class must be 4 or less"),
        ("class 1", "classes must be a list"),
        ([], "classes must be a list"),
    ],
)
def test_a_class_that_there_is_not_is_refused(split: Split, classes: Any, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        split.where(classes)


def test_a_file_names_samples_by_key_or_by_the_name_of_a_file(split: Split, tmp_path: Path) -> None:
    names = text(tmp_path / "list.txt", "# chosen by hand", "00000021.jpg", "", "images/00000004.JPEG", "00000002")
    assert numbers(split.subset(names)) == [2, 4, 21]


def called(monkeypatch: pytest.MonkeyPatch, pattern: str) -> None:
    """Keys of this form for the rows of the split: of the class a or b, and a number in it."""
    keys = [pattern.format("ab"[row % 2], row // 2) for row in range(COUNT)]
    monkeypatch.setattr(Split, "_whole_keys", lambda self: np.array(keys, object))


def test_directories_tell_samples_of_one_name_apart(
    split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called(monkeypatch, "train/{}/{}.png")
    part = split.subset(text(tmp_path / "list.txt", "a/3.png", "train/b/0.jpg", "b/10", "11"))
    assert part.keys().tolist() == ["train/b/0.png", "train/a/3.png", "train/b/10.png", "train/a/11.png"]
    with pytest.raises(UsageError, match=r"'3.png' is the name of 2 samples, such as 'train/a/3.png', 'train/b/3.png'"):
        split.subset(text(tmp_path / "list.txt", "a/2.png", "3.png"))


def test_dots_in_keys_tell_samples_apart(split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called(monkeypatch, "{}.{}")
    part = split.subset(text(tmp_path / "list.txt", "b.3", "a.4.jpg"))
    assert part.keys().tolist() == ["b.3", "a.4"]
    with pytest.raises(UsageError, match="'a' is the name of 12 samples"):
        split.subset(text(tmp_path / "list.txt", "a"))


def test_a_file_names_classes(split: Split, tmp_path: Path) -> None:
    part = split.subset(text(tmp_path / "list.txt", "class 4", "class 0"))
    assert part.class_names == ("class 0", "class 4")


def test_a_class_is_known_by_the_first_word_of_its_name(tmp_path: Path) -> None:
    whole = write_split(tmp_path, [jpeg(photo(16, 16))] * 3, short_side=16, classes=3)
    manifest = whole.manifest
    object.__setattr__(manifest, "class_names", ("n01 tench, Tinca", "n02: shark", "n03"))
    assert whole.where(["n03", "n01"]).class_names == ("n01 tench, Tinca", "n03")
    object.__setattr__(manifest, "class_names", ("crane bird", "crane", "n03"))
    assert whole.where(["crane"]).class_names == ("crane",)


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (["nobody"], "'nobody' is neither a class nor a sample of this data set"),
        (["00000001", "nobody", "none"], "2 names of 3 are of no sample of this data set, such as 'nobody'"),
        (["class 1", "class 9"], "there is no class 'class 9'"),
        (["", "# nothing"], "holds no name"),
    ],
)
def test_a_file_with_a_wrong_name_is_refused(split: Split, lines: list[str], told: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=told):
        split.subset(text(tmp_path / "list.txt", *lines))


def test_a_missing_file_a_directory_and_bytes_are_no_list(split: Split, tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(UsageError, match="is not a file: give a fraction"):
            split.subset(path)
    with pytest.raises(UsageError, match="cannot be read as a list of names"):
        split.subset(tmp_path / "bytes")


@pytest.mark.parametrize("fraction", [0, 1, 1.5, -0.1, float("nan"), True, None])
def test_a_fraction_lies_between_0_and_1(split: Split, fraction: Any) -> None:
    with pytest.raises(UsageError, match="must lie between 0 and 1"):
        split.subset(fraction)


@pytest.mark.parametrize(
    ("classes", "told"),
    [
        ({"class 1": 0}, r"^the name of a new class must be text, not 0$"),
        ({5: "a"}, "the number of a class must be 4 or less, not 5"),
    ],
)
def test_a_mapping_has_classes_and_new_names(split: Split, classes: Any, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        split.map_classes(classes)


def test_classes_are_joined_under_new_names(split: Split, tmp_path: Path) -> None:
    lines = ("class 4\tanimal", "class 0\tvehicle", "class 2\tanimal")
    numbered: dict[int, str] = {4: "animal", 0: "vehicle", 2: "animal"}
    for given_as in (text(tmp_path / "map.tsv", *lines), dict(line.split("\t") for line in lines), numbered):
        part = split.map_classes(given_as)
        assert part.class_names == ("animal", "vehicle")
        assert numbers(part) == [row for row in range(COUNT) if row % CLASSES in (0, 2, 4)]
        assert part.labels.tolist() == [int(row % CLASSES == 0) for row in numbers(part)]


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (["class"], "'class' names no new class"),
        (["class 1\ta", "class 1\tb"], "the class 'class 1' has two new ones, 'a' and 'b'"),
        (["class 9\ta"], "there is no class 'class 9'"),
    ],
)
def test_a_wrong_class_map_is_refused(split: Split, lines: list[str], told: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=told):
        split.map_classes(text(tmp_path / "map.tsv", *lines))


def test_a_loader_gives_the_samples_of_a_part_and_their_ids(split: Split) -> None:
    part = split.where(["class 1", "class 3"])
    with Loader(part, batch_size=4, train=True, size=16, drop_last=False, ids=True) as loader:
        batches = list(loader)
    ids = np.concatenate([ids.numpy() for _, _, ids in batches])
    labels = np.concatenate([labels.numpy() for _, labels, _ in batches])
    assert sorted(ids) == list(range(len(part)))
    assert (labels == part.labels[ids]).all()


def test_the_state_of_another_part_is_refused(split: Split) -> None:
    first, second = split.select(range(10)), split.select(range(1, 11))
    with (
        Loader(first, batch_size=4, train=True, size=16) as one,
        Loader(second, batch_size=4, train=True, size=16) as other,
    ):
        state = one.state_dict()
        one.load_state_dict(state)
        with pytest.raises(UsageError, match="another part of the split"):
            other.load_state_dict(state)
        del state["subset"], state["labels"]  # as in the states of earlier versions
        other.load_state_dict(state)


def test_ids_are_those_of_the_samples_that_stand_for_damaged_ones(tmp_path: Path) -> None:
    split = write_split(tmp_path, [jpeg(photo(16, 16, seed)) for seed in range(6)], short_side=16, classes=6)
    path, index = split.shard_paths[0], split.index
    data = bytearray(path.read_bytes())
    data[index.offset[2] + 40] ^= 0xFF
    path.write_bytes(data)
    with (
        pytest.warns(UserWarning, match="00000002"),
        Loader(split, batch_size=6, train=False, size=16, on_error="skip", ids=True) as loader,
    ):
        [(_, labels, ids)] = list(loader)
    assert ids.tolist() == labels.tolist() == [0, 1, 3, 3, 4, 5]
    with (
        pytest.warns(UserWarning, match="00000002"),
        Loader(split, batch_size=6, train=False, size=16, on_error="omit", ids=True) as loader,
    ):
        [(images, labels, ids)] = list(loader)
    assert ids.tolist() == labels.tolist() == [0, 1, 3, 4, 5]
    assert len(images) == 5
