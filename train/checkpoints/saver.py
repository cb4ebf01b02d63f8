"""When a run is saved, and under which names. In OUT/checkpoints:

last.pt         the newest: after every epoch, every --checkpoint-minutes, and when a signal ends the run
previous.pt     the one before, in case the newest turns out damaged
best.pt         of the epoch with the best top-1
epoch-0004.pt   of every --keep-every-th epoch

A checkpoint is written between two optimizer steps, or after the training and before the evaluation of an epoch. A
signal is obeyed between two steps, between two batches of an evaluation, or while waiting for a batch that does not
arrive. A checkpoint that cannot be written, on a full disk for instance, ends the run; the one before stays.
"""

import os
import shutil
import signal
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from tqdm import tqdm

from model.weights import About, save_whole
from shards.common.atomic import PART, replacing, sync_directory
from shards.common.errors import ShardfeedError
from shards.common.signals import StoppedBySignal, StopRequest
from shards.common.terminal import wrapped
from train.checkpoints.earlier import CHECKPOINTS, LAST, NEW, PREVIOUS
from train.checkpoints.resume import Checkpoint
from train.checkpoints.snapshot import StepStart, capture, restore
from train.checkpoints.waiting import Interrupted
from train.ranks.distributed import LeftAlone, max_over_ranks
from train.report.metrics import Recorder
from train.report.progress import doing
from train.run import Run, read_losses, refuse_broken

if TYPE_CHECKING:
    from shards import Loader

BEST = "best.pt"

# Several ranks agree on saving and stopping about this often: the exchange makes a GPU wait, so not every step.
AGREE_S = 2.0


class CheckpointSaver:
    """Saves a run. All ranks call every method at the same step; only the main one writes.

    own: the run's identity. stop: whether a signal asks the run to stop. about: what the weights are of.
    """

    def __init__(
        self,
        run: Run,
        loader: "Loader",
        recorder: Recorder,
        own: Mapping[str, Any],
        stop: StopRequest,
        about: About | None = None,
    ) -> None:
        self._about = about
        self._run, self._loader, self._recorder, self._own, self._stop = run, loader, recorder, own, stop
        self._config, self._world = run.setup.config, run.setup.world
        self._folder = self._config.out / CHECKPOINTS
        self._saved_at = self._agreed_at = time.monotonic()
        self._steps, self._agree_after = 0, 1
        self._step_start: StepStart | None = None
        self._saved_step = 0

    def resume(self, checkpoint: Checkpoint) -> None:
        """Puts the run where `checkpoint` was saved."""
        run = self._run
        restore(run, self._loader, checkpoint.snapshot)
        run.saved, self._saved_step = checkpoint.path, run.step
        self._say(f"going on after optimizer step {run.step}, in epoch {run.epoch}, from {checkpoint.path}")
        if checkpoint.path != self._folder / LAST:
            self.save()  # so that last.pt is this run's

    def at_step(self) -> None:
        """After an optimizer step that does not end its epoch: saves if it is time, or if the run has to stop."""
        self._steps += 1
        if self._steps < self._agree_after:
            return
        due, number = self._agree()
        if due or number:
            read_losses(self._run)  # waits until a GPU has finished the steps, whose time the clock must count
            self._run.clock.stop()
            self.save()
            self._run.clock.start()
        self._obey(number)

    def at_epoch_end(self) -> None:
        """After an epoch's training, before its evaluation."""
        self.save()
        self._obey(self._agree()[1])

    def at_batch(self, number: int) -> None:
        """Before a micro-batch of training is asked for: remembers the start of a step that has several of them."""
        accumulate = self._run.setup.batch.accumulate
        if number % accumulate == 0 and accumulate > 1 and self._world.size == 1:
            self._step_start = StepStart.of(self._run, self._loader)

    def at_validation_batch(self, number: int) -> None:
        """Before a batch of an evaluation is asked for. Raises Interrupted if a signal has come."""
        if self._stop.number:
            raise Interrupted

    def interrupted(self) -> NoReturn:
        """Called after a signal has ended a wait or an evaluation: saves, then ends the run.

        Several ranks cannot save there, because the others may be in the middle of a step: the last checkpoint stays.
        Raises StoppedBySignal, or LeftAlone.
        """
        run, number = self._run, self._stop.number
        run.clock.stop()
        if self._world.size > 1:
            name = signal.Signals(number).name
            tqdm.write(f"rank {self._world.rank} stopped by {name}; --resume auto goes on from {run.saved}", sys.stderr)
            raise LeftAlone(number)
        if run.step > self._saved_step:
            if self._step_start is not None:
                self._step_start.go_back(run, self._loader)
            self.save()
        self._obey(number)
        raise AssertionError("a signal had come")

    def keep(self, top1: float | None) -> None:
        """At the end of an epoch: keeps its checkpoint, which is last.pt, if it is the best or a --keep-every.

        `top1`: its accuracy; None without validation, where no epoch is the best.
        """
        run, every = self._run, self._config.keep_every
        if every is not None and run.epoch % every == 0:
            self._keep_as(f"epoch-{run.epoch:04d}.pt")
        if top1 is not None and (run.best is None or top1 > run.best):
            run.best = top1
            self._keep_as(BEST)

    def save(self) -> None:
        """Writes last.pt, whole or not at all, and keeps the one before.

        Raises ShardfeedError if training has diverged or the file cannot be written; what was saved before stays.
        """
        with doing(f"saving {self._folder / LAST}", self._world):
            self._save()

    def _save(self) -> None:
        run, last = self._run, self._folder / LAST
        read_losses(run)
        refuse_broken(run)
        snapshot = capture(run, self._loader, self._own, self._about)
        if snapshot is not None:
            try:
                save_whole({**snapshot, "files": self._recorder.sizes()}, self._folder / NEW)
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
        run.saved, self._saved_step = last, run.step
        self._saved_at = time.monotonic()

    def _agree(self) -> tuple[bool, int]:
        """Whether it is time to save, by any rank's clock, and the signal that any rank has received, or 0."""
        now = time.monotonic()
        pace = (now - self._agreed_at) / max(1, self._steps)
        wanted = torch.tensor([float(self._is_due(now)), float(self._stop.number), pace], dtype=torch.float64)
        due, number, pace = max_over_ranks(wanted, self._world).tolist()
        # All ranks derive the same number of steps from the slowest pace. One rank alone looks after every step.
        self._agree_after = 1 if self._world.size == 1 else max(1, int(AGREE_S / max(pace, 1e-3)))
        self._steps, self._agreed_at = 0, time.monotonic()
        return due > 0, int(number)

    def _is_due(self, now: float) -> bool:
        return now - self._saved_at >= 60 * self._config.checkpoint_minutes

    def _obey(self, number: int) -> None:
        """Ends the run if a signal asks for it. Raises StoppedBySignal."""
        if number:
            # No rank ends before the main one has written: torchrun kills the others when one of them is gone.
            max_over_ranks(torch.zeros(1), self._world)
            stopped = StoppedBySignal(number)
            saved = f"saved in {self._run.saved}; --resume auto, the default, goes on from it"
            self._say(
                f"stopped by {stopped.name} after optimizer step {self._run.step}, "
                f"{saved if self._run.saved else 'with nothing to save'}"
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
            tqdm.write(wrapped(line, sys.stderr), file=sys.stderr)
