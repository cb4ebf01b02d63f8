"""What a run shows on a terminal while it works: bars, and what it does besides training.

Where stderr is no terminal nothing of this is shown, but the lines of train/report/header.py are.
"""

import contextlib
import time
from collections import deque
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self

import torch
from torch import Tensor
from tqdm import tqdm

from train.ranks.distributed import World

# As tqdm's own, with images/s also below one image a second, where tqdm would turn the figure round.
_FORMAT = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_noinv_fmt}{postfix}]"
# Between two renewals of the figures behind a bar.
_PAUSE_S = 0.1

Batch = tuple[Tensor, Tensor]


class ImageBar:
    """A bar over images of all ranks, on the main rank's terminal; it moves with each micro-batch.

    Behind it stand images/s, the loss of this rank's newest step, and the wait for data since the last line of the log.
    """

    def __init__(self, title: str, images: int, world: World) -> None:
        self._ranks = world.size
        self._bar = tqdm(
            total=images, desc=title, unit=" images", leave=False, bar_format=_FORMAT, disable=bar_disabled(world)
        )
        self._newest, self._wait, self._renewed = NewestLoss(), "", 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def counted(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches; each moves the bar when the next one is asked for."""
        for batch in batches:
            yield batch
            self._bar.update(len(batch[1]) * self._ranks)

    def show_loss(self, loss: Tensor, images: int) -> None:
        """After a step: `loss` is the sum over this rank's `images`. Never waits for a GPU."""
        if self._bar.disable:
            return
        self._newest.offer(loss, images)
        now = time.monotonic()
        if self._newest.value is not None and now - self._renewed >= _PAUSE_S:
            self._renewed = now
            self._bar.set_postfix_str(f"training loss {self._newest.value:.3f}{self._wait}")

    def show_wait(self, percent: float) -> None:
        """The share of the time in which the loop waited for data."""
        self._wait = f", data-wait {percent:.1f}%"


class NewestLoss:
    """The mean loss of the newest step that the device has finished. `value`: None before the first."""

    def __init__(self) -> None:
        self.value: float | None = None
        self._on_their_way: deque[tuple[Tensor, torch.cuda.Event, int]] = deque()

    def offer(self, loss: Tensor, images: int) -> None:
        """`loss`: a step's sum over `images`. On a GPU it is copied behind the step, and looked at once it has come."""
        if loss.device.type != "cuda":
            self.value = float(loss) / images
            return
        copy = torch.empty((), dtype=loss.dtype, pin_memory=True)
        copy.copy_(loss, non_blocking=True)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        self._on_their_way.append((copy, event, images))
        while self._on_their_way and self._on_their_way[0][1].query():  # type: ignore[no-untyped-call]
            arrived, _, of_images = self._on_their_way.popleft()
            self.value = float(arrived) / of_images


@contextlib.contextmanager
def doing(what: str, world: World) -> Iterator[None]:
    """Shows, for as long as the block runs, what the run does besides training."""
    with tqdm(total=0, desc=what, bar_format="{desc} ...", leave=False, disable=bar_disabled(world)):
        yield


def bar_disabled(world: World) -> bool | None:
    """tqdm's `disable`: a progress bar on the main rank alone, and there only on a terminal."""
    return None if world.is_main else True
