"""Every argument of the public functions of `shards`, with values that make no sense: one line that names it."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from shards import Colour, Loader, UsageError, View, open_dataset
from shards.dataset import Split
from shards.defaults import OF_DATALOADER
from shards.remote.cache import Cache

# Of no type that any argument takes, or no word or share that any knows. Some print on many lines.
WRONG: tuple[Any, ...] = (
    *(1.5, float("nan"), "x", "", b"x", (224, 160), [1], {}, object(), torch.device("cpu"), np.float32(2.0)),
    *(np.array([1, 2]), np.array([]), np.zeros((9, 9)), torch.tensor([1, 2]), torch.zeros(9, 9)),
)
FLAGS = {"train", "flip", "replacement", "fast_idct", "drop_last", "ids"}
SEEDS = {"seed", "order_seed"}


def refused(call: Callable[[], Any], name: str) -> None:
    with pytest.raises(UsageError) as caught:
        call()
    message = str(caught.value)
    assert name in message
    assert "\n" not in message
    assert len(message) < 250


@pytest.mark.parametrize("name", inspect.signature(Loader).parameters)
def test_an_argument_of_a_wrong_type_is_named_in_one_line(small_split: Split, name: str) -> None:
    whole: dict[str, Any] = {"split": small_split, "batch_size": 4, "train": True, "size": 32}
    numbers = () if name in SEEDS else (-1, 2**80)
    for value in (*WRONG, *numbers, *(() if name in FLAGS else (True,))):
        refused(lambda value=value: Loader(**{**whole, name: value}), name)  # type: ignore[misc]


def test_a_whole_data_set_in_place_of_a_split_is_told_what_to_choose_from(small_split: Split) -> None:
    splits: Any = open_dataset(small_split.root)
    with pytest.raises(UsageError, match="split must be one split and not the whole data set: choose one of train"):
        Loader(splits, batch_size=4, train=True)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"train": True, "num_workers": 4}, "there is no argument num_workers (threads decode, in this process)"),
        ({"shuffle": True}, "there is no argument shuffle (train=True shuffles"),
        ({"shuffle": True}, "train must be given"),
        ({"train": True, "pin_memory": True}, 'there is no argument pin_memory (device="gpu"'),
        ({"train": True, "pading": 4}, "there is no argument pading (did you mean padding?)"),
        ({}, "train must be given"),
        ({"train": True, "weights": "balance"}, 'weights must be "balanced" or '),
    ],
)
def test_arguments_of_other_loaders_and_missing_ones_are_named(
    small_split: Split, given: dict[str, Any], said: str
) -> None:
    refused(lambda: Loader(small_split, batch_size=4, **given), said)


@pytest.mark.parametrize(
    ("public", "given", "right"),
    [(Colour, "brightnes", "brightness"), (View, "sise", "size"), (Cache, "byte", "bytes")],
)
def test_an_unknown_argument_of_a_dataclass_is_told_as_the_loader_s(public: Any, given: str, right: str) -> None:
    said = rf"^{public.__name__}: there is no argument {given} \(did you mean {right}\?\)$"
    with pytest.raises(UsageError, match=said):
        public(**{given: 1})


def test_arguments_by_position_are_refused(small_split: Split) -> None:
    loader: Any = Loader
    refused(lambda: loader(small_split, 4, True), "Loader: too many positional arguments")


def test_the_arguments_of_a_dataloader_are_none_of_ours() -> None:
    assert not OF_DATALOADER.keys() & inspect.signature(Loader).parameters.keys()


def test_a_batch_larger_than_any_memory_is_refused(small_split: Split) -> None:
    with pytest.raises(UsageError, match="batch_size must be 1,048,576 or less, not 1048577"):
        Loader(small_split, batch_size=2**20 + 1, train=False, size=32)


@pytest.mark.parametrize("state", [None, 3, [], {}, "x", {"epoch": 1}])
def test_what_is_no_state_is_refused(small_split: Split, state: Any) -> None:
    with Loader(small_split, batch_size=4, train=True, size=32) as loader:
        refused(lambda: loader.load_state_dict(state), "not the state of a loader")


@pytest.mark.parametrize("name", ["seed", "order_seed", "samples", "order", "window", "epoch", "position"])
def test_a_state_with_a_value_that_is_no_number_is_refused(small_split: Split, name: str) -> None:
    with Loader(small_split, batch_size=4, train=True, size=32) as loader:
        for value in (*WRONG, None, -1):
            refused(lambda value=value: loader.load_state_dict({**loader.state_dict(), name: value}), name)  # type: ignore[misc]


def test_epochs_and_sizes_of_wrong_types_are_refused(small_split: Split) -> None:
    with Loader(small_split, batch_size=4, train=True, size=32) as loader:
        for value in (*WRONG, -1, True):
            refused(lambda value=value: loader.set_epoch(value), "epoch")  # type: ignore[misc]
            refused(lambda value=value: loader.set_size(value), "size")  # type: ignore[misc]
            refused(lambda value=value: loader.set_size(32, value), "resize")  # type: ignore[misc]


def test_a_place_of_a_wrong_type_is_refused(small_split: Split) -> None:
    roots: list[Any] = [None, 3, small_split, b"x", ["x"], {}]
    for root in roots:
        refused(lambda root=root: open_dataset(root), "the directory of a data set must be a path")  # type: ignore[misc]
    caches: list[Any] = ["cache", Path("cache"), 3]
    for cache in caches:
        refused(lambda cache=cache: open_dataset(small_split.root, cache), "cache must be a Cache")  # type: ignore[misc]


def test_a_split_that_is_not_there_is_answered_with_those_there(small_split: Split) -> None:
    splits: Any = open_dataset(small_split.root)
    for name in ("val", None, 0):
        with pytest.raises(UsageError, match=r"no split .*: the data set has train"):
            splits[name]


def test_a_home_directory_may_be_written_as_a_shell_does(small_split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(small_split.root.parent))
    assert len(open_dataset(f"~/{small_split.root.name}")["train"]) == len(small_split)


def test_cache_takes_a_path_as_text_and_names_what_it_cannot_take(tmp_path: Path) -> None:
    text: Any = str(tmp_path / "cache")
    assert Cache(text).directory == tmp_path / "cache"
    numbers: list[Any] = [0, "1GB", 1.5]
    for number in numbers:
        refused(lambda number=number: Cache(tmp_path, number), "bytes")  # type: ignore[misc]
    refused(lambda: Cache(None), "directory")  # type: ignore[arg-type]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_data_loader_around_a_loader_or_a_split_is_told_to_go(small_split: Split, workers: int) -> None:
    with Loader(small_split, batch_size=4, train=True, size=32) as loader:
        for inside in (loader, small_split):
            outer: Any = DataLoader(inside, num_workers=workers)  # type: ignore[arg-type]
            with pytest.raises(UsageError, match="DataLoader"):
                next(iter(outer))


def test_public_values_say_in_one_line_what_they_are(small_split: Split) -> None:
    root = small_split.root
    assert repr(open_dataset(root)) == f"<Dataset of 10 classes, train 29 samples, {root}>"
    assert repr(small_split) == f"<Split train: 29 samples in 5 shards, 10 classes, {root}>"
    assert repr(small_split.index) == "<Index of 29 samples in 5 shards>"
    assert repr(small_split.info) == "<SplitInfo: 29 samples in 5 shards, 0 rejects>"
    assert repr(small_split.manifest) == "<Manifest of test: train, 10 classes, format version 2>"
    with Loader(small_split, batch_size=4, train=True, size=32) as loader:
        assert repr(loader) == (
            f"<Loader of {small_split!r}: batches of 4, rank 0 of 1, random crop of 32 pixels, float32 on the cpu>"
        )
