"""Stops a job before it writes, where most images of its source are smaller than --short-side.

Such images would take many times their room, and train no better. Where only a few are smaller, as in ImageNet, they
are enlarged, so that all stored sides are equal.
"""

import numpy as np

from preprocess.images.convert import image_size
from preprocess.job.estimate import sample
from preprocess.job.plan import Plan
from preprocess.sources.source import Source
from shards.common.errors import UsageError
from shards.format.manifest import SHORT_SIDES

# Enough to tell most images from a few: the share in a sample of 100 is right to a tenth, 19 times in 20.
SAMPLES = 100


def refuse_small_images(source: Source, plan: Plan) -> None:
    """Reads the headers of a sample of all splits. Raises UsageError where most images are smaller than the plan's."""
    short_side = plan.settings.short_side
    if short_side is None:
        return
    sides = shorter_sides(source, plan)
    small = sum(side < short_side for side in sides)
    if 2 * small <= len(sides):
        return
    median = sides[(len(sides) - 1) // 2]
    fitting = f"--short-side {median}" if median in SHORT_SIDES else "--original"
    raise UsageError(
        f"most images of {plan.source} are smaller than --short-side {short_side}: {small} of {len(sides)} sampled "
        f"ones, whose median shorter side is {median} pixels; give {fitting} to store them without enlarging most, or "
        f"--enlarge to enlarge them to {short_side} pixels"
    )


def shorter_sides(source: Source, plan: Plan) -> list[int]:
    """The shorter sides, in pixels and in order, of a sample of the plan's rows, without those that cannot be used."""
    rows = {split: np.arange(count) for split, count in plan.splits.items()}
    sides = []
    for split, row in sample(rows, SAMPLES, plan.settings.seed):
        try:
            sides.append(min(image_size(source.row(split, row).data)))
        except Exception:  # the conversion names what it cannot read
            continue
    return sorted(sides)
