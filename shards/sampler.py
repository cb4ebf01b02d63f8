"""What trainers ask of a DataLoader's sampler, for a loader that has none."""

from typing import TYPE_CHECKING, Never

from shards.common.errors import UsageError

if TYPE_CHECKING:
    from shards.loader import Loader


class EpochSampler:
    """Stands for a loader's `sampler` and its `batch_sampler`: it passes `set_epoch` on, and yields no indices.

    Trainers announce an epoch by `loader.sampler.set_epoch(e)` or `loader.batch_sampler.sampler.set_epoch(e)`.
    """

    def __init__(self, loader: "Loader") -> None:
        self._loader = loader

    @property
    def sampler(self) -> "EpochSampler":
        """The sampler of the batch sampler."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """See `Loader.set_epoch`."""
        self._loader.set_epoch(epoch)

    def __iter__(self) -> Never:
        raise UsageError(
            "a loader's batches cannot be skipped or shared out from outside, since it chooses the samples itself: "
            "load_state_dict() goes on inside an epoch (in HF's Trainer with ignore_data_skip=True), and "
            "Loader(rank=, world_size=) shares it among ranks"
        )
