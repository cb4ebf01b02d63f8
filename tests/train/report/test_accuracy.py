"""Accuracy on one rank: right counts, few classes, and a refusal to report on the wrong number of images."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from shards.common.errors import ShardfeedError
from tests.helpers.training import FixedBatches, setup_of
from train.config import Config
from train.options import Sizes
from train.report.accuracy import Accuracy, evaluate, figures

CONFIG = Config(Path("unused"), size=16)
SETUP = setup_of(CONFIG)


class Lookup(nn.Module):
    """Logits that are written into the image's first pixels: channel 0, row 0."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, images: Tensor) -> Tensor:
        return images[:, 0, 0, : self.classes]


def test_top1_and_top5_count_what_they_should() -> None:
    images = torch.zeros(4, 3, 10, 10)
    images[:, 0, 0] = torch.arange(10.0)  # best guess 9, then 8, 7, 6, 5
    labels = torch.tensor([9, 5, 4, 0])
    batches = FixedBatches([])
    batches.batches = [(images[:3], labels[:3]), (images[3:], labels[3:])]
    accuracy, _ = evaluate(Lookup(10), batches, 4, SETUP)
    expected = nn.functional.cross_entropy(images[:, 0, 0], labels).item()
    assert (accuracy.top1, accuracy.top5, accuracy.images) == (25.0, 50.0, 4)
    assert accuracy.loss == pytest.approx(expected)


@pytest.mark.parametrize("classes", [1, 2, 4, 5])
def test_with_up_to_five_classes_every_guess_is_among_the_best_five(classes: int) -> None:
    batches = FixedBatches([5, 5, 1], classes=classes)
    assert evaluate(Lookup(classes), batches, 11, SETUP)[0].top5 == 100.0


def test_a_wrong_number_of_images_gives_no_figure() -> None:
    with pytest.raises(ShardfeedError, match=r"saw 7 images of 8 .validation."):
        evaluate(Lookup(3), FixedBatches([4, 3], classes=3), 8, SETUP)


def test_evaluation_switches_dropout_and_batch_statistics_off() -> None:
    network = nn.Sequential(nn.Dropout(0.9), nn.BatchNorm2d(3), Lookup(10))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    batches = FixedBatches([8])
    first, second = (evaluate(network, batches, 8, SETUP) for _ in range(2))
    assert first == second
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_classes_are_counted_apart() -> None:
    images = torch.zeros(5, 3, 10, 10)
    images[:, 0, 0] = torch.arange(10.0)
    batches = FixedBatches([])
    labels = torch.tensor([9, 5, 4, 9, 0])
    batches.batches = [(images[:3], labels[:3]), (images[3:], labels[3:])]
    _, classes = evaluate(Lookup(10), batches, 5, SETUP)
    assert classes.images == [1, 0, 0, 0, 1, 1, 0, 0, 0, 2]
    assert classes.top1 == [0] * 9 + [2]
    assert classes.top5 == [0, 0, 0, 0, 0, 1, 0, 0, 0, 2]


def test_with_flips_the_guess_is_the_mean_of_two() -> None:
    # Of each image the left half says class 0 or 1 with some weight, and the right half, in reverse, another.
    images = torch.zeros(2, 3, 4, 4)
    images[0, 0, 0] = torch.tensor([3.0, 0.0, 5.0, 0.0])  # seen from both sides: (3, 0) and (0, 5)
    images[1, 0, 0] = torch.tensor([3.0, 0.0, 1.0, 0.0])  # (3, 0) and (0, 1)
    batches = FixedBatches([])
    batches.batches = [(images, torch.tensor([1, 0]))]
    flipped = dataclasses.replace(CONFIG, sizes=Sizes(flip_tta=True))
    assert evaluate(Lookup(2), batches, 2, SETUP)[0].top1 == 50.0
    accuracy = evaluate(Lookup(2), batches, 2, setup_of(flipped))[0]
    assert accuracy.top1 == 100.0
    mean = torch.tensor([[1.5, 2.5], [1.5, 0.5]])
    assert accuracy.loss == pytest.approx(nn.functional.cross_entropy(mean, torch.tensor([1, 0])).item())


def test_top5_is_said_only_of_more_than_five_classes() -> None:
    accuracy = Accuracy(top1=50.0, top5=100.0, loss=1.25, images=8)
    assert figures(accuracy, 5) == "loss 1.250, top-1 50.00%"
    assert figures(accuracy, 6) == "loss 1.250, top-1 50.00%, top-5 100.00%"


def test_an_image_with_several_right_classes_among_the_five_best_counts_once() -> None:
    batches = [(torch.zeros(2, 3, 8, 8), torch.tensor([0, 1]), torch.tensor([0, 1]))]
    right = torch.tensor([[True, True, True, False, False, False], [False] * 6])
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 6))
    accuracy, _ = evaluate(network, batches, 2, setup_of(Config(Path())), right=right)  # type: ignore[arg-type]
    assert accuracy.top5 == 50
