"""Mixup, CutMix and random erasing: what they do to images and labels, and that they are data, not state."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, one_hot

from train.optim.mixing import Mixed, beta, erase, erase_boxes, mix
from train.options import Mixing

LABELS = torch.arange(6)
# Every pixel of an image holds its label.
IMAGES = LABELS.float().view(-1, 1, 1, 1).expand(6, 3, 20, 24).contiguous()


def test_without_mixing_a_batch_stays_what_it_is() -> None:
    mixed = mix(IMAGES, LABELS, Mixing(), seed=0, step=0)
    assert mixed.images is IMAGES
    assert mixed.weight == 1.0


@settings(max_examples=50)
@given(seed=st.integers(0, 5), step=st.integers(0, 1000), alpha=st.sampled_from([0.2, 1.0, 3.0]))
def test_mixup_shows_an_image_and_its_neighbour_by_their_weights(seed: int, step: int, alpha: float) -> None:
    mixed = mix(IMAGES, LABELS, Mixing(mixup=alpha), seed, step)
    assert 0 <= mixed.weight <= 1
    expected = mixed.weight * mixed.labels + (1 - mixed.weight) * mixed.others
    torch.testing.assert_close(mixed.images[:, 1, 3, 5], expected, atol=1e-5, rtol=0)
    assert mixed.others.tolist() == [5, 0, 1, 2, 3, 4]


@settings(max_examples=50)
@given(seed=st.integers(0, 5), step=st.integers(0, 1000))
def test_cutmix_pastes_a_box_whose_area_is_the_neighbours_weight(seed: int, step: int) -> None:
    before = IMAGES.clone()
    mixed = mix(IMAGES, LABELS, Mixing(cutmix=1.0), seed, step)
    assert torch.equal(IMAGES, before)
    pasted = mixed.images == mixed.others.view(-1, 1, 1, 1)
    assert pasted.float().mean().item() == pytest.approx(1 - mixed.weight, abs=1e-6)
    assert torch.equal(pasted | (mixed.images == IMAGES), torch.ones_like(pasted))
    rows, columns = pasted[0, 0].any(1).nonzero(), pasted[0, 0].any(0).nonzero()
    assert pasted[0, 0].sum() == len(rows) * len(columns)  # a rectangle


def test_with_both_each_step_takes_one_of_the_two() -> None:
    pasted = [
        set(mix(IMAGES, LABELS, Mixing(mixup=1.0, cutmix=1.0), 0, step).images[1].flatten().tolist()) <= {0.0, 1.0}
        for step in range(60)
    ]
    assert 15 < sum(pasted) < 45


@pytest.mark.parametrize(("weight", "right"), [(1.0, [[0], [1]]), (0.85, [[0], [1]]), (0.7, [[0, 1], [1, 0]])])
def test_binary_cross_entropy_takes_a_label_for_wholly_right_from_a_fifth_of_the_image_on(
    weight: float, right: list[list[int]]
) -> None:
    logits = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1])
    target = torch.stack([one_hot(torch.tensor(classes), 4).sum(0) for classes in right]).float()
    expected = binary_cross_entropy_with_logits(logits, target, reduction="none").mean(1).sum()
    torch.testing.assert_close(Mixed(IMAGES[:2], labels, labels.roll(1), weight).loss(logits, "bce"), expected)


def test_binary_cross_entropy_is_timms() -> None:
    timm = pytest.importorskip("timm.loss")
    logits = torch.randn(6, 6, generator=torch.Generator().manual_seed(0))
    mixed = mix(IMAGES, LABELS, Mixing(mixup=1.0), seed=1, step=2)
    target = mixed.weight * one_hot(LABELS, 6) + (1 - mixed.weight) * one_hot(mixed.others, 6)
    expected = timm.BinaryCrossEntropy(smoothing=0.0, target_threshold=0.2)(logits, target) * len(logits)
    torch.testing.assert_close(mixed.loss(logits, "bce"), expected)


def test_the_loss_is_that_of_the_mixed_labels() -> None:
    logits = torch.randn(6, 6, generator=torch.Generator().manual_seed(0))
    mixed = mix(IMAGES, LABELS, Mixing(mixup=1.0), seed=1, step=2)
    target = mixed.weight * one_hot(LABELS, 6) + (1 - mixed.weight) * one_hot(mixed.others, 6)
    expected = cross_entropy(logits, target, reduction="sum", label_smoothing=0.1)
    torch.testing.assert_close(mixed.loss(logits, "ce", 0.1), expected)


@pytest.mark.parametrize(("alpha", "variance"), [(0.2, 0.25 / 1.4), (1.0, 1 / 12), (4.0, 0.25 / 9)])
def test_weights_are_distributed_as_beta(alpha: float, variance: float) -> None:
    drawn = np.array([beta(alpha, 0, step) for step in range(3000)])
    assert drawn.mean() == pytest.approx(0.5, abs=0.03)
    assert drawn.var() == pytest.approx(variance, rel=0.1)  # alpha + alpha: 1 / (4 * (2 * alpha + 1))


def test_erasing_is_as_frequent_and_as_large_as_asked() -> None:
    boxes = erase_boxes(np.arange(4000), 100, 100, 0.25, seed=3, step=7)
    erased = boxes[boxes[:, 2] > 0]
    assert len(erased) / 4000 == pytest.approx(0.25, abs=0.03)
    area = erased[:, 2] * erased[:, 3] / 1e4
    assert area.min() > 0.015
    assert area.max() < 0.35
    assert area.mean() == pytest.approx(0.175, abs=0.02)
    assert (erased[:, :2] >= 0).all()
    assert (erased[:, :2] + erased[:, 2:] <= 100).all()


def test_an_erased_rectangle_is_zero_and_the_rest_stays() -> None:
    images = torch.ones(50, 3, 16, 12)
    boxes = erase_boxes(np.arange(50), 16, 12, 0.5, seed=0, step=0)
    erased = erase(images, 0.5, 0, 0, np.arange(50))
    assert images.min() == 1
    for image, (top, left, height, width) in zip(erased, boxes.tolist(), strict=True):
        expected = torch.ones(3, 16, 12)
        expected[:, top : top + height, left : left + width] = 0
        assert torch.equal(image, expected)


def test_what_is_erased_follows_an_image_to_whatever_rank_holds_it() -> None:
    whole = erase_boxes(np.arange(12), 30, 30, 0.5, seed=1, step=4)
    halves = [erase_boxes(np.arange(rank, 12, 2), 30, 30, 0.5, seed=1, step=4) for rank in range(2)]
    assert np.array_equal(whole[0::2], halves[0])
    assert np.array_equal(whole[1::2], halves[1])
    assert not np.array_equal(whole, erase_boxes(np.arange(12), 30, 30, 0.5, seed=1, step=5))


def test_the_global_generators_are_not_asked() -> None:
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].tolist()  # type: ignore[index]  # noqa: NPY002
    mix(IMAGES, LABELS, Mixing(mixup=0.2, cutmix=1.0), 0, 1)
    erase(IMAGES, 0.5, 0, 1, np.arange(6))
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.random.get_state()[1].tolist() == numpy_state  # type: ignore[index]  # noqa: NPY002
