"""Weights and repeated augmentation through the loader: exact resume, any number of ranks."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shards import Loader
from shards.common.errors import UsageError
from shards.dataset import Split
from tests.conftest import jpeg, photo, write_split

COUNT, CLASSES = 30, 3
DRAWS: list[dict[str, Any]] = [
    {"weights": "balanced", "num_samples": 40},
    {"weights": np.arange(COUNT), "replacement": False, "num_samples": 25},
    {"num_repeats": 3},
]


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    images = [jpeg(photo(24, 24, seed)) for seed in range(COUNT)]
    return write_split(tmp_path_factory.mktemp("data"), images, short_side=24, classes=CLASSES)


def load(split: Split, **options: Any) -> Loader:
    return Loader(split, **{"batch_size": 4, "train": True, "size": 16, "threads": 1, "ids": True, **options})


def samples(loader: Loader) -> list[tuple[int, bytes]]:
    """The ids and pixels of an epoch, or of the rest of one."""
    return [
        (int(number), image.numpy().tobytes())
        for images, _, ids in loader
        for image, number in zip(images, ids, strict=True)
    ]


@pytest.mark.parametrize("draw", DRAWS)
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_an_epoch_resumed_anywhere_by_other_ranks_holds_the_same_images(
    split: Split, draw: dict[str, Any], data: st.DataObject
) -> None:
    with load(split, drop_last=False, **draw) as loader:
        loader.set_epoch(2)
        whole = samples(loader)
        assert len(whole) == loader.samples == draw.get("num_samples", COUNT)
        loader.set_epoch(2)
        steps = data.draw(st.integers(1, 6))
        batches = iter(loader)
        for _ in range(steps):
            next(batches)
        state = loader.state_dict()
    world = data.draw(st.integers(1, 3))
    rest = []
    for rank in range(world):
        with load(split, batch_size=2, rank=rank, world_size=world, drop_last=False, **draw) as other:
            other.load_state_dict(state)
            rest += samples(other)
    assert sorted(rest) == sorted(whole[4 * steps :])


@pytest.mark.parametrize("draw", [DRAWS[0], DRAWS[2]])
def test_each_copy_of_an_image_is_cropped_anew(split: Split, draw: dict[str, Any]) -> None:
    with load(split, drop_last=False, **draw) as loader:
        found = samples(loader)
    assert len({number for number, _ in found}) < len(found)
    assert len(set(found)) > 0.9 * len(found)  # two crops may be alike


def test_without_weights_batches_are_those_of_before(split: Split) -> None:
    with load(split) as plain, load(split, num_repeats=1, weights=None) as same:
        assert all(
            torch.equal(a, b) for one, two in zip(plain, same, strict=True) for a, b in zip(one, two, strict=True)
        )


def test_a_state_of_other_weights_is_refused(split: Split) -> None:
    with load(split, weights="balanced") as loader, load(split) as plain, load(split, num_repeats=2) as repeated:
        for other in (plain, repeated):
            with pytest.raises(UsageError, match="other weights, num_samples or num_repeats"):
                other.load_state_dict(loader.state_dict())
        state = plain.state_dict()
        del state["draw"]  # as in those of earlier versions
        plain.load_state_dict(state)
        with pytest.raises(UsageError, match="other weights"):
            loader.load_state_dict(state)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"weights": "even"}, 'weights must be "balanced" or 30 numbers'),
        ({"weights": [1.0] * 29}, 'weights must be "balanced" or 30 numbers from 0 up, .+, not 29$'),
        ({"weights": [1.0] * CLASSES}, r"not one for each class: of these take weights\[split.labels\]$"),
        ({"weights": [0.0] * 30}, "of which one is above 0, and all are 0$"),
        ({"weights": [1.0, -1.0] * 15}, "from 0 up, .+, and number 1 is -1$"),
        ({"weights": [float("nan")] * 30}, "from 0 up, .+, and number 0 is nan$"),
        ({"weights": 5}, "from 0 up, .+, not 5$"),
        ({"weights": ["a"] * 30}, "from 0 up"),
        ({"weights": "balanced", "order": "blocks"}, "order='blocks' does not apply"),
        ({"weights": "balanced", "num_samples": 0}, "num_samples must be 1 or more"),
        ({"weights": "balanced", "num_samples": 3}, "has 3 samples, fewer than one global batch of 4"),
        ({"num_repeats": 0}, "num_repeats must be 1 or more"),
        ({"replacement": "no"}, "replacement must be True or False"),
        (
            {"weights": "balanced", "train": False},
            "weights draw samples for training, .+, or leave them out",
        ),
        ({"num_repeats": 2, "train": False}, "num_repeats draws samples for training, .+, or leave it out"),
    ],
)
def test_arguments_that_draw_nothing_are_refused(split: Split, options: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        load(split, **options)


def test_repeats_are_an_option_of_training(tmp_path: Path) -> None:
    from tests.helpers.training import setup_of, write_dataset
    from train.config import Config
    from train.data import rest_of_epoch, training_loader, training_split
    from train.options import Feeding

    data = write_dataset(tmp_path, {"train": 300, "validation": 2}, side=16)
    config = Config(data, size=16, batch=16, micro_batch=16, threads=1, feeding=Feeding(num_repeats=3))
    setup, split = setup_of(config), training_split(config)
    with training_loader(split, setup) as loader:
        assert len(rest_of_epoch(loader, setup)) == 256 // 16
