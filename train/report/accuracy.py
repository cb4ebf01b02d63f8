"""Top-1 and top-5 accuracy over a whole split, exact on any number of ranks, and the accuracy of each class."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from shards.common.errors import ShardfeedError
from train.data import Batches, skipped
from train.ranks.distributed import World, max_over_ranks, sum_over_ranks
from train.report.progress import ImageBar
from train.run import Setup

TOP5 = 5


@dataclass(frozen=True)
class Accuracy:
    """The percentage of `images` whose label is the best guess, or among the five best; and the mean cross-entropy.

    `left_out`: the split's other images, which are damaged.
    """

    top1: float
    top5: float
    loss: float
    images: int
    left_out: int = 0


@dataclass(frozen=True)
class ClassCounts:
    """For each class: its images, and for how many of them it is the best guess, or among the five best."""

    images: list[int]
    top1: list[int]
    top5: list[int]


@torch.no_grad()
def evaluate(
    network: nn.Module,
    batches: Batches,
    images_expected: int,
    setup: Setup,
    name: str = "validation",
    columns: Sequence[int] | None = None,
    right: Tensor | None = None,
) -> tuple[Accuracy, ClassCounts]:
    """The accuracy of `network` over all ranks' batches, which together hold each whole image of the split once.

    name: of the split, for people. columns: the number that each class of the split has for the network, of whose
    logits the others are left out; None: the same numbers. right: (images, classes) bool, which classes are right for
    each sample id, where that is not the label alone; the batches then have the ids too.
    Each rank counts its images and the correct guesses; one exchange adds up the counts. With fewer than five classes
    every guess is among the best five. With --flip-tta the logits are the mean over each image and its mirror image.
    Raises ShardfeedError if seen and damaged images together are not `images_expected`, or all are damaged.
    """
    world, dtype, flip = setup.world, setup.dtype, setup.config.sizes.flip_tta
    network.eval()

    def logits_of(images: Tensor) -> Tensor:
        with torch.autocast(world.device.type, dtype, enabled=dtype != torch.float32):
            logits: Tensor = network(images.contiguous(memory_format=torch.channels_last))
        return logits.float() if columns is None else logits[:, columns].float()

    # Asked for before the first batch: in a network divided by FSDP, every forward pass is an exchange too.
    most_batches = int(max_over_ranks(torch.tensor(float(len(batches))), world))
    # correct at 1, correct at 5, sum of losses, images seen, damaged: float64 counts exactly up to 2**53.
    sums = torch.zeros(5, dtype=torch.float64, device=world.device)
    sums[4] -= skipped(batches)
    of_classes = torch.zeros((3, 0), dtype=torch.float64, device=world.device)
    passes = 0
    with ImageBar(name, images_expected, world) as bar:
        for batch in bar.counted(batches):
            images, labels = batch[:2]
            ids: Any = batch[2:]
            if not len(labels):  # all of its images are damaged
                continue
            passes += 1
            logits = logits_of(images)
            if flip:
                logits = (logits + logits_of(images.flip(3))) / 2
            if not of_classes.numel():
                of_classes = of_classes.new_zeros((3, logits.shape[1]))
            best = logits.topk(min(TOP5, logits.shape[1]), dim=1).indices
            hits = best == labels.unsqueeze(1)
            if right is not None:
                hits = right[ids[0]].to(best.device).gather(1, best)
            sums[0] += hits[:, 0].sum()
            sums[1] += hits.any(1).sum()  # of several right classes one is enough
            sums[2] += F.cross_entropy(logits, labels, reduction="sum")
            sums[3] += len(labels)
            of_classes[0].index_add_(0, labels, torch.ones_like(labels, dtype=torch.float64))
            of_classes[1].index_add_(0, labels, hits[:, 0].double())
            of_classes[2].index_add_(0, labels, hits.any(1).double())
    sums[4] += skipped(batches)
    if isinstance(network, FSDPModule):
        _join_in(logits_of, most_batches - passes, setup)
    of_classes = _same_shape(of_classes, world)
    totals = sum_over_ranks(torch.cat([sums, of_classes.flatten()]), world)
    correct1, correct5, loss, seen, damaged = totals[:5].tolist()
    if seen + damaged != images_expected:
        also = f" and {damaged:.0f} damaged ones" if damaged else ""
        raise ShardfeedError(
            f"the evaluation saw {seen:.0f} images{also} of {images_expected} ({name}): no figure is given"
        )
    if not seen:
        raise ShardfeedError(f"all {images_expected} images ({name}) are damaged: no figure is given")
    accuracy = Accuracy(
        top1=100 * correct1 / seen,
        top5=100 * correct5 / seen,
        loss=loss / seen,
        images=int(seen),
        left_out=int(damaged),
    )
    return accuracy, ClassCounts(*totals[5:].long().view(3, -1).tolist())


def _join_in(logits_of: Callable[[Tensor], Tensor], batches: int, setup: Setup) -> None:
    """Runs a network divided by FSDP once more for each batch that only other ranks have: they need all weights."""
    sizes, device = setup.config.sizes, setup.world.device
    size = sizes.val_size or setup.config.size
    for _ in range(batches * (1 + sizes.flip_tta)):
        logits_of(torch.zeros(1, 3, size, size, device=device))


def _same_shape(of_classes: Tensor, world: World) -> Tensor:
    """The counts; zeros on a rank that had no batch and so does not know the number of classes."""
    classes = int(max_over_ranks(torch.tensor(float(of_classes.shape[1])), world))
    return of_classes if of_classes.numel() else of_classes.new_zeros((3, classes))


def figures(accuracy: Accuracy, classes: int) -> str:
    """The figures in words: "loss 1.234, top-1 56.78%, top-5 80.12%", and `without`."""
    top5 = f", top-5 {accuracy.top5:.2f}%" if has_top5(classes) else ""
    return f"loss {accuracy.loss:.3f}, top-1 {accuracy.top1:.2f}%{top5}{without(accuracy)}"


def has_top5(classes: int) -> bool:
    """Whether top-5 says anything: among five classes or fewer it is always 100%."""
    return classes > TOP5


def without(accuracy: Accuracy) -> str:
    """The end of a line of figures: on how many images they are, where damaged ones are left out."""
    if not accuracy.left_out:
        return ""
    return f" of {accuracy.images:,} images, without {accuracy.left_out:,} damaged"
