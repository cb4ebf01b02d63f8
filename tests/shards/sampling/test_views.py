"""Views as data: what a view gets depends on (seed, epoch, sample, its number) and nothing else."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.common.errors import UsageError
from shards.sampling.colour import (
    BLUR,
    BRIGHTNESS,
    CONTRAST,
    GRAY,
    HUE,
    IDENTITY,
    SATURATION,
    SOLARIZE,
    Colour,
    draws,
)
from shards.sampling.crops import CropWindows
from shards.sampling.presets import PRESETS, choose_views, dino, mocov3
from shards.sampling.views import PlannedViews, View, plan_views, single

JITTER = (BRIGHTNESS, CONTRAST, SATURATION, HUE)
COLOUR = Colour(0.4, 0.3, 0.2, 0.1, jitter=0.8, gray=0.2, blur=0.5, solarize=0.2)
TWO = (View(32, scale=(0.4, 1.0), colour=COLOUR), View(16, scale=(0.05, 0.4), colour=COLOUR, n=3))


def plan(
    views: tuple[View, ...], ids: list[int], *, seed: int = 0, epoch: int = 0, side: int = 90
) -> tuple[CropWindows, PlannedViews]:
    sides = np.array([side + each % 7 for each in ids], np.int32), np.array([120 - each % 5 for each in ids], np.int32)
    return plan_views(single(views), np.array(ids), *sides, seed=seed, epoch=epoch)


def in_image(planned: tuple[CropWindows, PlannedViews]) -> np.ndarray:
    """(n, views, everything): windows in the image, mirror, colours."""
    region, views = planned
    corner = region.anchor[:, None] + views.anchor
    return np.concatenate([corner, views.shape, views.mirror[..., None], views.operation, views.strength], axis=-1)


@given(
    ids=st.lists(st.integers(0, 2_000_000), min_size=1, max_size=8), seed=st.integers(0, 99), epoch=st.integers(0, 9)
)
def test_what_a_sample_gets_does_not_depend_on_its_batch(ids: list[int], seed: int, epoch: int) -> None:
    together = in_image(plan(TWO, ids, seed=seed, epoch=epoch))
    for place, sample in enumerate(ids):
        assert np.array_equal(in_image(plan(TWO, [sample], seed=seed, epoch=epoch))[0], together[place])


def test_what_a_view_gets_does_not_depend_on_the_views_after_it() -> None:
    every, first = in_image(plan(TWO, [3, 70])), in_image(plan(TWO[:1], [3, 70]))
    assert np.array_equal(every[:, :1], first)


def test_views_samples_epochs_and_seeds_differ() -> None:
    same = (View(32, n=2, colour=COLOUR),)
    base = in_image(plan(same, [3]))[0]
    assert not np.array_equal(base[0], base[1])
    for other in (plan(same, [4]), plan(same, [3], epoch=1), plan(same, [3], seed=1)):
        assert not np.array_equal(in_image(other)[0], base)


@given(ids=st.lists(st.integers(0, 2_000_000), min_size=1, max_size=8), side=st.integers(1, 300))
def test_windows_lie_in_the_region_and_the_region_in_the_image(ids: list[int], side: int) -> None:
    region, views = plan(TWO, ids, side=side)
    extent = region.shape[:, None]
    assert (views.anchor >= 0).all()
    assert (views.anchor + views.shape <= extent).all()
    assert (views.anchor.min(axis=1) == 0).all()
    assert ((views.anchor + views.shape).max(axis=1) == region.shape).all()
    assert (region.anchor >= 0).all()
    assert (region.anchor[:, 0] + region.shape[:, 0] <= [side + each % 7 for each in ids]).all()


def test_windows_have_the_area_and_the_ratio_of_their_view() -> None:
    ids = np.arange(3000)
    sides = np.full(3000, 500, np.int32)
    views = single([View(224, scale=(0.4, 1.0), ratio=(1.0, 1.2)), View(96, scale=(0.05, 0.14), n=2)])
    _, planned = plan_views(views, ids, sides, sides, seed=0, epoch=0)
    share = planned.shape.prod(axis=-1) / 250_000
    ratio = planned.shape[..., 1] / planned.shape[..., 0]
    assert 0.39 < share[:, 0].min() < 0.42
    assert share[:, 0].max() > 0.9
    assert (share[:, 1:] > 0.049).all()
    assert (share[:, 1:] < 0.142).all()
    assert abs(share[:, 1:].mean() - 0.095) < 0.002
    assert ((ratio[:, 0] > 0.99) & (ratio[:, 0] < 1.21)).all()
    assert ratio[:, 1].min() < 0.78


def test_half_are_mirrored_unless_a_view_is_not() -> None:
    _, planned = plan((View(8), View(8, flip=False)), list(range(4000)))
    assert abs(planned.mirror[:, 0].mean() - 0.5) < 0.03
    assert not planned.mirror[:, 1].any()


def drawn(colour: Colour, count: int = 6000) -> tuple[np.ndarray, np.ndarray]:
    operation, strength = draws([colour], np.arange(count)[:, None], 0, 0)
    return operation[:, 0], strength[:, 0]


def test_each_change_comes_as_often_as_it_should() -> None:
    operation, _ = drawn(COLOUR)
    for what, share in ((BRIGHTNESS, 0.8), (HUE, 0.8), (GRAY, 0.2), (BLUR, 0.5), (SOLARIZE, 0.2)):
        assert abs((operation == what).any(axis=1).mean() - share) < 0.025
    applied = np.isin(operation, JITTER).sum(axis=1)
    assert set(applied.tolist()) == {0, 4}


def test_the_jitter_comes_in_every_order_evenly() -> None:
    operation, _ = drawn(dataclasses.replace(COLOUR, jitter=1.0))
    orders, counts = np.unique(operation[:, 1:5], axis=0, return_counts=True)
    assert len(orders) == 24
    # Chi-squared with 23 degrees of freedom: above 58 once in ten thousand.
    assert ((counts - 250) ** 2 / 250).sum() < 58


def test_strengths_fill_their_ranges_evenly() -> None:
    operation, strength = drawn(Colour(0.4, 1.5, 0.2, 0.1, blur=1.0, sigma=(0.5, 0.7)))
    for what, low, high in (
        (BRIGHTNESS, 0.6, 1.4),
        (CONTRAST, 0.0, 2.5),
        (SATURATION, 0.8, 1.2),
        (HUE, -0.1, 0.1),
        (BLUR, 0.5, 0.7),
    ):
        share = (strength[operation == what] - low) / (high - low)
        assert -1e-5 <= share.min() < 0.01
        assert 0.99 < share.max() <= 1.00001
        assert abs(share.mean() - 0.5) < 0.02


def test_gray_blur_and_solarize_come_after_the_jitter_in_this_order() -> None:
    operation, _ = drawn(Colour(0.4, gray=1.0, blur=1.0, solarize=1.0))
    assert (operation[:, 5:] == [GRAY, BLUR, SOLARIZE]).all()


def test_three_augment_is_one_of_three_and_then_the_jitter() -> None:
    operation, _ = drawn(Colour(0.3, 0.3, 0.3, one_of_three=True))
    first, counts = np.unique(operation[:, 0], return_counts=True)
    assert set(first.tolist()) == {GRAY, BLUR, SOLARIZE}
    assert (abs(counts / len(operation) - 1 / 3) < 0.02).all()
    assert (np.sort(operation[:, 1:5], axis=1) == [IDENTITY, BRIGHTNESS, CONTRAST, SATURATION]).all()
    assert (operation[:, 5:] == IDENTITY).all()


def test_without_arguments_nothing_changes() -> None:
    assert not drawn(Colour())[0].any()


@settings(max_examples=5)
@given(name=st.sampled_from(sorted(PRESETS)))
def test_presets_are_plans(name: Any) -> None:
    _, planned = plan(choose_views(name), [1, 2])
    assert planned.mirror.shape == (2, {"simclr": 2, "mocov3": 2, "swav": 8, "dino": 10, "mae": 1}[name])


def test_the_views_of_asymmetric_methods_differ_in_blur_and_solarize() -> None:
    for views in (mocov3(), dino()):
        assert [(view.colour.blur, view.colour.solarize) for view in views[:2]] == [(1.0, 0.0), (0.1, 0.2)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: View(0), "size must be 1 or more"),
        (lambda: View(224.5), "size must be a whole number"),  # type: ignore[arg-type]
        (lambda: View(scale=(0.5, 0.2)), "scale must be"),
        (lambda: View(scale=0.5), "scale must be two numbers"),  # type: ignore[arg-type]
        (lambda: View(scale=(0.5, 2)), "scale must be 1 or less"),
        (lambda: View(ratio=(0, 1)), "ratio must be 0.001 or more"),
        (lambda: View(n=0), "n must be 1 or more"),
        (lambda: View(interpolation="nearest"), "interpolation must be one of"),  # type: ignore[arg-type]
        (lambda: View(colour="jitter"), "colour must be a Colour"),  # type: ignore[arg-type]
        (lambda: Colour(hue=0.6), "hue must be 0.5 or less"),
        (lambda: Colour(brightness=-1), "brightness must be 0 or more"),
        (lambda: Colour(brightness=float("nan")), "brightness must be a number"),
        (lambda: Colour(blur=1.5), "blur must be a number from 0 to 1"),
        (lambda: Colour(sigma=(0.0, 1.0)), "sigma must be 0.01 or more"),
        (lambda: Colour(gray=0.1, one_of_three=True), "one_of_three chooses"),
        (lambda: Colour(gray=0.1, jitter=0.8), "jitter is the probability of brightness, .+: give one of them"),
        (lambda: Colour(0.4, sigma=(0.1, 1.0)), "sigma is for blur"),
        (lambda: choose_views("moco"), "views must be one of simclr"),  # type: ignore[arg-type]
        (lambda: choose_views([]), "views must be 1 to 256"),
        (lambda: choose_views([View(n=256), View()]), "views must be 1 to 256 in all, not 257"),
        (lambda: choose_views(View()), "views must be a list of View"),  # type: ignore[arg-type]
        (lambda: choose_views([224, 96]), "views must be a list of View"),  # type: ignore[list-item]
    ],
)
def test_a_mistake_is_one_line(make: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()
