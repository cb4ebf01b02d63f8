"""Progressive resizing: small images first, where steps are cheap, and the full size at the end.

After Touvron et al., "Fixing the train-test resolution discrepancy" (arXiv:1906.06423), networks do best at test when
they were trained on smaller images than they are tested on; ffcv-imagenet trains its ResNets so.
"""

from train.config import Config

# Sizes in between are multiples of this, so that feature maps keep whole sizes through five halvings.
MULTIPLE = 32


def training_size(config: Config, epoch: int) -> int:
    """Side in pixels of the training images of an epoch, counted from 1.

    `start_size` for the first `grow_from` epochs and the next one, then on a straight line to `size`, which the epoch
    after `grow_until` has.
    """
    sizes, before = config.sizes, epoch - 1
    if sizes.start_size is None or before >= sizes.grow_until:
        return config.size
    if before <= sizes.grow_from:
        return sizes.start_size
    part = (before - sizes.grow_from) / (sizes.grow_until - sizes.grow_from)
    exact = sizes.start_size + part * (config.size - sizes.start_size)
    return min(config.size, max(sizes.start_size, round(exact / MULTIPLE) * MULTIPLE))


def changes_size(config: Config, epoch: int) -> bool:
    """Whether an epoch's images have another size than those of the epoch before it."""
    return epoch > 1 and training_size(config, epoch) != training_size(config, epoch - 1)
