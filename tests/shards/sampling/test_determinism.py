"""Promises of docs/determinism.md that no other test holds."""

import hashlib
from typing import Any

import numpy as np
import pytest
import torch

from shards.dataset import Split
from shards.loader import Loader
from shards.sampling.colour import three_draws
from shards.sampling.crops import Crop, crop_windows
from shards.sampling.order import Order, epoch_order
from shards.sampling.policies import Policy, draws
from shards.sampling.presets import dino
from shards.sampling.views import plan_views, single

SHARD = np.repeat(np.arange(8, dtype=np.int32), 25)
IDS = np.arange(200)
HEIGHT = np.asarray(256 + IDS % 40, np.int32)
WIDTH = np.asarray(500 - IDS, np.int32)


def digest(*arrays: Any) -> str:
    return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()[:16]


@pytest.mark.parametrize(("order", "expected"), [("global", "a675d5ace39881d8"), ("blocks", "04cfcc28682eee96")])
def test_an_order_is_fixed_for_ever(order: Order, expected: str) -> None:
    assert digest(epoch_order(SHARD, order, 7, 3, 2).astype(np.int64)) == expected


@pytest.mark.parametrize(
    ("crop", "expected"), [("random", "5e073095eded346e"), ("center", "4ffd42513e186dff"), ("rrc", "51c00efb37c67003")]
)
def test_windows_and_flips_are_fixed_for_ever(crop: Crop, expected: str) -> None:
    cut = crop_windows(crop, IDS, HEIGHT, WIDTH, resize=250, size=224, flip=True, seed=7, epoch=3)
    assert digest(cut.anchor, cut.shape, cut.start, cut.end, cut.mirror) == expected


def test_padded_windows_are_fixed_for_ever() -> None:
    cut = crop_windows("random", IDS, HEIGHT, WIDTH, resize=250, size=224, flip=True, seed=7, epoch=3, padding=28)
    assert digest(cut.anchor, cut.shape, cut.start, cut.end, cut.mirror, cut.shift) == "e6820651dfdaf1b1"


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("trivial", "6166e4b3bc4e61ba"), ("rand", "abcb7c6c2c65cb54"), ("auto", "bfe187f3e25f9219")],
)
def test_what_a_policy_draws_is_fixed_for_ever(policy: Policy, expected: str) -> None:
    drawn = draws(policy, IDS, seed=7, epoch=3)
    assert digest(drawn["operation"], drawn["magnitude"], drawn["sign"]) == expected


@pytest.mark.parametrize("options", [{"crop": "rrc"}, {"crop": "random", "augment": "trivial"}, {"dtype": "uint8"}])
def test_batches_do_not_depend_on_the_number_of_threads(small_split: Split, options: dict[str, Any]) -> None:
    seen = []
    for threads in (1, 4):
        with Loader(small_split, batch_size=8, train=True, size=32, resize=40, threads=threads, **options) as loader:
            seen.append(torch.cat([images for images, _ in loader]))
    assert torch.equal(*seen)


def test_what_views_get_is_fixed_for_ever() -> None:
    region, views = plan_views(single(dino()), IDS, HEIGHT, WIDTH, seed=7, epoch=3)
    parts = (region.anchor, region.shape, views.anchor, views.shape, views.mirror, views.operation, views.strength)
    assert digest(*parts) == "d45e21ae4f6bdeeb"


def test_what_three_augment_does_is_fixed_for_ever() -> None:
    drawn = three_draws(IDS, seed=7, epoch=3)
    assert digest(drawn["operation"], drawn["strength"]) == "4a673441b29682a4"
