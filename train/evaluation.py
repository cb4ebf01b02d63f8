"""Top-1 and top-5 accuracy over a whole split, exact on any number of ranks."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from shards.errors import ShardfeedError
from train.data import Batches
from train.distributed import World, sum_over_ranks


@dataclass(frozen=True)
class Accuracy:
    """Percent of `images` whose label is the best guess, or among the five best; and the mean cross-entropy."""

    top1: float
    top5: float
    loss: float
    images: int


@torch.inference_mode()
def evaluate(network: nn.Module, batches: Batches, images_expected: int, world: World, dtype: torch.dtype) -> Accuracy:
    """The accuracy of `network` over all ranks' batches, which together hold each image of the split once.

    Each rank sums what is correct and what it has seen; one exchange adds the sums up. With fewer than five
    classes every guess is among the best five. Raises ShardfeedError if another number of images was seen
    than `images_expected`.
    """
    network.eval()
    # correct at 1, correct at 5, sum of losses, images seen: float64 counts exactly up to 2**53.
    sums = torch.zeros(4, dtype=torch.float64, device=world.device)
    for batch, labels in tqdm(batches, desc="validation", unit="batch", leave=False, disable=bar_disabled(world)):
        images = batch.contiguous(memory_format=torch.channels_last)
        with torch.autocast(world.device.type, dtype, enabled=dtype != torch.float32):
            logits = network(images).float()
        best = logits.topk(min(5, logits.shape[1]), dim=1).indices
        hits = best == labels.unsqueeze(1)
        sums[0] += hits[:, 0].sum()
        sums[1] += hits.sum()
        sums[2] += F.cross_entropy(logits, labels, reduction="sum")
        sums[3] += len(labels)
    correct1, correct5, loss, seen = sum_over_ranks(sums, world).tolist()
    if seen != images_expected:
        raise ShardfeedError(f"validation saw {seen:.0f} images of a split of {images_expected}: no figure is given")
    return Accuracy(top1=100 * correct1 / seen, top5=100 * correct5 / seen, loss=loss / seen, images=int(seen))


def bar_disabled(world: World) -> bool | None:
    """For tqdm: a progress bar on the main rank alone, and there only on a terminal."""
    return None if world.is_main else True
