"""What trainers of other projects ask of a loader, and the epoch that they announce after they loaded its state."""

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import BatchSampler, DataLoader

from shards import Loader, Split, UsageError


def load(split: Split, **options: Any) -> Loader:
    return Loader(split, **{"batch_size": 4, "train": True, "size": 32, "resize": 40, "threads": 1, **options})


def ids(loader: Loader) -> list[int]:
    """The samples of the next iteration."""
    return [number for batch in loader for number in batch[2].tolist()]


def left_after(loader: Loader, steps: int) -> dict[str, int]:
    """The loader's state after some steps of an iteration that is then left, as by a checkpoint."""
    batches = iter(loader)
    for _ in range(steps):
        next(batches)
    return loader.state_dict()


@pytest.mark.parametrize("announced", ["loader", "sampler", "batch_sampler.sampler", "both samplers"])
def test_announcing_the_epoch_of_a_loaded_state_keeps_the_position(small_split: Split, announced: str) -> None:
    with load(small_split, ids=True) as loader:
        loader.set_epoch(1)
        whole = ids(loader)
        loader.set_epoch(1)
        state = left_after(loader, 3)
    with load(small_split, ids=True) as loader:
        loader.load_state_dict(state)
        batches = iter(loader)  # Lightning takes the iterator before it announces the epoch
        if announced == "loader":
            loader.set_epoch(1)
        if announced in ("sampler", "both samplers"):
            loader.sampler.set_epoch(1)
        if announced in ("batch_sampler.sampler", "both samplers"):
            loader.batch_sampler.sampler.set_epoch(1)
        assert [number for batch in batches for number in batch[2].tolist()] == whole[12:]
        assert loader.epoch == 2


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(start=st.integers(0, 3), steps=st.integers(0, 7), other=st.integers(0, 3))
def test_announcing_another_epoch_begins_it(small_split: Split, start: int, steps: int, other: int) -> None:
    with load(small_split, ids=True) as loader:
        state = {**loader.state_dict(), "epoch": start, "position": 4 * steps}
        loader.set_epoch(other)
        whole = ids(loader)
        loader.load_state_dict(state)
        loader.set_epoch(other)
        assert ids(loader) == whole[4 * steps * (start == other) :]


@pytest.mark.parametrize("steps", [1, 3, 7])
def test_an_epoch_of_which_a_batch_was_taken_begins_anew(small_split: Split, steps: int) -> None:
    with load(small_split, ids=True) as loader:
        whole = ids(loader)
        for _ in range(2):  # the second time after a loaded state
            loader.set_epoch(0)
            left_after(loader, steps)
            loader.set_epoch(0)
            assert ids(loader) == whole
            loader.load_state_dict({**loader.state_dict(), "epoch": 0, "position": 0})


def test_a_position_once_continued_from_is_given_up(small_split: Split) -> None:
    with load(small_split, ids=True) as loader:
        whole = ids(loader)
        loader.load_state_dict({**loader.state_dict(), "epoch": 0, "position": 8})
        loader.set_epoch(0)
        assert ids(loader) == whole[8:]
        loader.set_epoch(0)
        assert ids(loader) == whole


def test_a_loader_answers_what_is_asked_of_a_dataloader(small_split: Split) -> None:
    with load(small_split) as train, load(small_split, train=False, batch_size=5) as validation:
        assert train.dataset is small_split
        assert len(train.dataset) == 29
        assert (train.batch_size, train.drop_last) == (4, True)
        assert (validation.batch_size, validation.drop_last) == (5, False)


def test_batches_cannot_be_taken_by_a_sampler(small_split: Split) -> None:
    with load(small_split) as loader:
        samplers: list[Any] = [loader.sampler, loader.batch_sampler, BatchSampler(loader.sampler, 4, False)]
        for sampler in samplers:
            batches: DataLoader[Any] = DataLoader(loader.dataset, batch_sampler=sampler)  # type: ignore[arg-type]
            with pytest.raises(UsageError, match=r"cannot be skipped or shared out .* load_state_dict\(\) goes on"):
                next(iter(batches))


def test_accelerate_that_would_skip_batches_is_told_what_to_do_instead(small_split: Split) -> None:
    accelerate = pytest.importorskip("accelerate")
    with load(small_split) as loader, pytest.raises(UsageError, match="ignore_data_skip=True"):
        next(iter(accelerate.skip_first_batches(loader, 2)))


@pytest.mark.parametrize("names", [("pixel_values", "labels"), ["image", "label", "id"]])
def test_batches_with_names(small_split: Split, names: Any) -> None:
    options = {"ids": len(names) == 3}
    with load(small_split, **options) as plain, load(small_split, keys=names, **options) as named:
        for parts, batch in zip(plain, named, strict=True):
            assert list(batch) == list(names)
            assert all(torch.equal(part, batch[name]) for part, name in zip(parts, names, strict=True))


@pytest.mark.parametrize(
    ("count", "wrong"), [(2, ("a", "b", "c")), (2, "ab"), (2, ("a", "a")), (2, ("a", 1)), (3, ("a", "b"))]
)
def test_names_that_do_not_fit_the_batch_are_refused(small_split: Split, count: int, wrong: Any) -> None:
    with pytest.raises(UsageError, match=f"keys must be {count} different words, not "):
        load(small_split, keys=wrong, ids=count == 3)
