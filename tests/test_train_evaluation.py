"""Accuracy on one rank: right counts, few classes, and a refusal to report on the wrong number of images."""

import pytest
import torch
from torch import Tensor, nn

from shards.errors import ShardfeedError
from tests.training_helpers import FixedBatches
from train.distributed import World
from train.evaluation import evaluate


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
    accuracy = evaluate(Lookup(10), batches, 4, World(), torch.float32)
    expected = nn.functional.cross_entropy(images[:, 0, 0], labels).item()
    assert (accuracy.top1, accuracy.top5, accuracy.images) == (25.0, 50.0, 4)
    assert accuracy.loss == pytest.approx(expected)


@pytest.mark.parametrize("classes", [1, 2, 4, 5])
def test_with_up_to_five_classes_every_guess_is_among_the_best_five(classes: int) -> None:
    batches = FixedBatches([5, 5, 1], classes=classes)
    assert evaluate(Lookup(classes), batches, 11, World(), torch.float32).top5 == 100.0


def test_a_wrong_number_of_images_gives_no_figure() -> None:
    with pytest.raises(ShardfeedError, match="saw 7 images of a split of 8"):
        evaluate(Lookup(3), FixedBatches([4, 3], classes=3), 8, World(), torch.float32)


def test_evaluation_switches_dropout_and_batch_statistics_off() -> None:
    network = nn.Sequential(nn.Dropout(0.9), nn.BatchNorm2d(3), Lookup(10))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    batches = FixedBatches([8])
    first, second = (evaluate(network, batches, 8, World(), torch.float32) for _ in range(2))
    assert first == second
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
