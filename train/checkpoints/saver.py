"""When a run is saved, where, and from which file it goes on. In OUT/checkpoints:

last.pt         the newest: after every epoch, every `checkpoint_minutes`, and when a signal arrives (StopRequest)
previous.pt     the one before, for when the newest turns out damaged
best.pt         of the epoch with the best top-1
epoch-0004.pt   of every `keep_every`-th epoch

All are written after the training and before the evaluation of an epoch, or between two optimizer steps; a signal
during an evaluation is obeyed after it, at no risk, because last.pt was written just before. A checkpoint that cannot
be written, on a full disk for instance, ends the run: the one before stays.
"""

import os
import shutil
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from tqdm import tqdm

from model.weights import save_whole
from shards.common.atomic import PART, replacing, sync_directory
from shards.common.errors import ShardfeedError
from shards.common.signals import StoppedBySignal, StopRequest
from train.checkpoints.resume import CHECKPOINTS, LAST, NEW, PREVIOUS, Found
from train.checkpoints.snapshot import capture, restore
from train.config import Config
from train.ranks.distributed import World, max_over_ranks
from train.report.metrics import Recorder
from train.run import Run, read_losses, refuse_broken

if TYPE_CHECKING:
    from shards import Loader

BEST = "best.pt"

# Several ranks agree on saving and stopping about this often: an exchange that makes a GPU wait, so not every step.
AGREE_S = 2.0


class Keeper:
    """Saves a run. Every method is called by all ranks at the same step; only the main one writes."""

    def __init__(
        self, config: Config, world: World, recorder: Recorder, own: Mapping[str, Any], stop: StopRequest
    ) -> None:
        self._config, self._world, self._recorder, self._own, self._stop = config, world, recorder, own, stop
        self._folder = config.out / CHECKPOINTS
        self._saved_at = self._agreed_at = time.monotonic()
        self._steps, self._until = 0, 1

    def resume(self, run: Run, loader: "Loader", found: Found) -> None:
        """Puts the run where `found` was saved."""
        restore(run, loader, found.state, self._config, self._world)
        run.saved = found.path
        self._say(f"going on after optimizer step {run.step}, in epoch {run.epoch}, from {found.path}")
        if found.path != self._folder / LAST:
            self.save(run, loader)  # from here on, last.pt is of this run

    def at_step(self, run: Run, loader: "Loader") -> None:
        """After an optimizer step that does not end its epoch: saves if it is time, or the run has to stop."""
        self._steps += 1
        if self._steps < self._until:
            return
        due, number = self._agree()
        if due or number:
            read_losses(
                run, self._config, self._world
            )  # on a GPU this waits for the steps done, which the clock must count
            run.clock.stop()
            self.save(run, loader)
            run.clock.start()
        self._obey(run, number)

    def at_epoch_end(self, run: Run, loader: "Loader") -> None:
        """After an epoch's training, before its evaluation."""
        self.save(run, loader)
        self._obey(run, self._agree()[1])

    def keep(self, run: Run, top1: float) -> None:
        """After an evaluation: the epoch's checkpoint, which is last.pt, stays if it is the best or one in so many."""
        every = self._config.keep_every
        if every is not None and run.epoch % every == 0:
            self._keep_as(f"epoch-{run.epoch:04d}.pt")
        if run.best is None or top1 > run.best:
            run.best = top1
            self._keep_as(BEST)

    def save(self, run: Run, loader: "Loader") -> None:
        """Writes last.pt, whole or not at all, and keeps the one before.

        Raises ShardfeedError if training has diverged or the file cannot be written; what was saved before stays.
        """
        read_losses(run, self._config, self._world)
        refuse_broken(run, self._world)
        state = capture(run, loader, self._own, self._world)
        last = self._folder / LAST
        if state is not None:
            try:
                save_whole({**state, "files": self._recorder.sizes()}, self._folder / NEW)
                if last.exists():
                    last.replace(self._folder / PREVIOUS)
                (self._folder / NEW).replace(last)
                sync_directory(self._folder)
            except OSError as error:
                kept = f"{run.saved} is kept" if run.saved else "nothing was saved before"
                raise ShardfeedError(
                    f"the checkpoint after optimizer step {run.step} could not be written to {self._folder} "
                    f"({error.strerror or error}), so training stops; {kept}: run the same command again to go on"
                ) from error
        run.saved = last
        self._saved_at = time.monotonic()

    def _agree(self) -> tuple[bool, int]:
        """Whether a rank finds that it is time to save, and the signal that a rank has received, or 0."""
        now = time.monotonic()
        pace = (now - self._agreed_at) / max(1, self._steps)
        wanted = torch.tensor([float(self._is_due(now)), float(self._stop.number), pace], dtype=torch.float64)
        due, number, pace = max_over_ranks(wanted, self._world).tolist()
        # All ranks derive the same number of steps from the same pace; alone, looking costs nothing.
        self._until = 1 if self._world.size == 1 else max(1, int(AGREE_S / max(pace, 1e-3)))
        self._steps, self._agreed_at = 0, time.monotonic()
        return due > 0, int(number)

    def _is_due(self, now: float) -> bool:
        return now - self._saved_at >= 60 * self._config.checkpoint_minutes

    def _obey(self, run: Run, number: int) -> None:
        if number:
            # No rank ends before the main one has written: torchrun kills the others when one of them is gone.
            max_over_ranks(torch.zeros(1), self._world)
            stopped = StoppedBySignal(number)
            self._say(
                f"stopped by {stopped.name} after optimizer step {run.step}, saved in {run.saved}; "
                "--resume auto, the default, goes on from it"
            )
            raise stopped

    def _keep_as(self, name: str) -> None:
        """Gives last.pt another name too; a copy where the file system has no hard links."""
        if not self._world.is_main:
            return
        last, kept = self._folder / LAST, self._folder / name
        part = kept.with_name(name + PART)
        part.unlink(missing_ok=True)
        try:
            os.link(last, part)
            part.replace(kept)
        except OSError:
            with replacing(kept) as target, last.open("rb") as source:
                shutil.copyfileobj(source, target)

    def _say(self, line: str) -> None:
        if self._world.is_main:
            tqdm.write(line, file=sys.stderr)
