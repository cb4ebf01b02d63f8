"""The training run, from top to bottom: open the data; start or resume; then train, save and evaluate each epoch.

    from train.config import Config
    from train.engine import train
    result = train(Config(data=Path("DIR"), epochs=5))

Under torchrun each process calls the same function. The results lie in `config.out`; train/report/metrics.py describes
the files.
"""

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from tqdm import tqdm

from model.networks import train_mode
from model.weights import write_state
from shards.common.errors import ShardfeedError
from shards.common.signals import StopRequest
from shards.common.terminal import counted, wrapped
from shards.dataset import Split
from train.checkpoints.earlier import result_of
from train.checkpoints.resume import claim, find_checkpoint
from train.checkpoints.saver import CheckpointSaver
from train.checkpoints.snapshot import identity
from train.checkpoints.waiting import BatchWait, Interrupted, Watched
from train.checkpoints.weights import describe_run
from train.config import Config
from train.data import Batches, held_out_loader, open_splits, rest_of_epoch, set_training_size, training_loader
from train.optim.gpu_memory import memory_advice
from train.ranks.distributed import joined, sum_over_ranks, try_on_main, wait_for_all
from train.ranks.parallel import network_state
from train.report.accuracy import Accuracy, evaluate, figures
from train.report.environment import peak_memory, resolved_config
from train.report.header import print_header
from train.report.metrics import PER_CLASS, Recorder, room_in, write_per_class
from train.report.progress import ImageBar, doing
from train.report.result import WEIGHTS, Result, complete_line
from train.run import Run, begin, read_losses, set_up
from train.step import accumulate, update

if TYPE_CHECKING:
    from shards import Loader

# Optimizer steps left out of the throughput: libraries choose their algorithms and the loader fills its queue.
WARM_UP_STEPS = 3


@dataclass(frozen=True)
class HeldOut:
    """What an epoch ends with: the batches to validate on, how many images all ranks' batches hold, and a name."""

    batches: Batches
    images: int
    name: str


def train(config: Config) -> Result:
    """Trains as `config` says and returns the result; the weights are saved after every epoch.

    A run that was cut short goes on from its newest checkpoint: see train/checkpoints/saver.py. Of a run that is
    complete the result is read, and nothing changes.

    Raises UsageError for a configuration that fits neither the machine nor the data set, or an `out` that holds
    other results; ShardfeedError if the loss stops being finite or a checkpoint cannot be written; StoppedBySignal,
    after saving, on SIGTERM, SIGHUP, SIGUSR1 or Ctrl-C.
    """
    began = time.perf_counter()
    split, held_out = open_splits(config)
    with joined(config.device, config.memory.offload) as world:
        reached = try_on_main(lambda: result_of(config), ShardfeedError, world)
        if reached is not None:
            if world.is_main:
                tqdm.write(wrapped(complete_line(config.out, reached)))
            return reached
        network, setup = set_up(config, split, world)
        config = setup.config
        with (
            memory_advice(config, setup.batch.micro_batch, world.size),
            training_loader(split, setup) as loader,
            contextlib.nullcontext() if held_out is None else held_out_loader(held_out, setup) as validation,
        ):
            wait_for_all(world, "loaders")
            run = begin(network, setup, micro_batches=len(loader), began=began)
            print_header(split, held_out, run, loader.samples, micro_batches=len(loader))
            own = identity(config, split, setup.dtype)
            checkpoint = find_checkpoint(config, world, own)
            log = claim(config, world, checkpoint)
            position = None if checkpoint is None else checkpoint.log_position
            out, resolved = config.out if world.is_main else None, resolved_config(setup, split)
            with (
                Recorder(out, resolved, position, wandb=config.wandb, log=log) as recorder,
                StopRequest() as stop,  # before this, a signal ends the process: there is nothing to save
                BatchWait(stop) as wait,
            ):
                saver = CheckpointSaver(run, loader, recorder, own, stop, describe_run(split, config))
                if checkpoint is not None:
                    saver.resume(checkpoint)
                    del checkpoint  # as large as the run itself
                validated = None
                if held_out is not None and validation is not None:
                    watched = Watched(validation, wait, saver.at_validation_batch)
                    validated = HeldOut(watched, len(held_out), held_out.short_title)
                try:
                    return _train_epochs(run, loader, split, validated, recorder, saver, wait)
                except Interrupted:
                    saver.interrupted()


def _train_epochs(
    run: Run,
    loader: "Loader",
    split: Split,
    held_out: HeldOut | None,
    recorder: Recorder,
    saver: CheckpointSaver,
    wait: BatchWait,
) -> Result:
    """Trains an epoch, saves, evaluates, keeps the best, reports, and again."""
    setup, epochs = run.setup, run.setup.config.epochs
    for epoch in range(max(1, run.epoch), epochs + 1):
        if epoch > run.epoch:
            set_training_size(loader, setup.config, epoch)
        rest = Watched(rest_of_epoch(loader, setup), wait, saver.at_batch)
        loss = train_epoch(run, rest, recorder, epoch, saver.at_step, loader.gpu_wait)
        if len(rest):
            run.learner.settle(setup.world)
            saver.at_epoch_end()
        accuracy = None if held_out is None else _validate(run, held_out, split, recorder)
        _write_weights(run, split)
        saver.keep(None if accuracy is None else accuracy.top1)
        reached = ""
        if held_out is not None and accuracy is not None:
            reached = f"{held_out.name} {figures(accuracy, len(split.class_names))}, "
        _report_epoch(run, loss, reached, loader.skipped, recorder)
        loader.set_epoch(epoch)
    total, steady = run.clock.read(), run.clock.steady()
    left_out = epochs * loader.samples - total.images
    with doing("drawing the curves", setup.world):
        recorder.total_time(total, run.clock.wall_seconds(), steady.images_per_s, left_out)
    return Result(
        top1=None if accuracy is None else accuracy.top1,
        top5=None if accuracy is None else accuracy.top5,
        loss=None if accuracy is None else accuracy.loss,
        images_per_s=steady.images_per_s,
        train_seconds=total.seconds,
        steps=run.step,
        weights=setup.config.out / WEIGHTS,
    )


def train_epoch(
    run: Run,
    batches: Batches,
    recorder: Recorder,
    epoch: int,
    after_step: Callable[[], None] = lambda: None,
    gpu_wait: Callable[[], float] = lambda: 0.0,
) -> float:
    """One pass over `batches`, an epoch or the rest of one; returns the mean loss over all ranks' images of the epoch.

    An optimizer step takes as many micro-batches as make up --batch-size, and the epoch's last step what is left.
    Losses stay on the device until they are logged or saved: reading one makes the host wait for the GPU.
    `after_step` is called between two steps. `gpu_wait`: seconds that the GPU has waited for data since the last call.
    """
    config, world, in_a_step = run.setup.config, run.setup.world, run.setup.batch.accumulate
    train_mode(run.learner.network, run.learner.parallel, frozen=config.start.freeze)
    run.clock.start()
    if epoch != run.epoch:
        run.enter(epoch)
    micro_batches = run.clock.timed(batches)
    firsts = range(0, len(batches), in_a_step)
    images, done = len(batches) * run.setup.batch.micro_batch * world.size, run.clock.epoch_so_far().images
    later = (config.epochs - epoch) * run.total_steps // config.epochs * config.batch
    with ImageBar(f"epoch {epoch}/{config.epochs}", images, world, later, done) as bar:
        for first in firsts:
            bar.show_step(run.step, run.total_steps)
            count = min(in_a_step, len(batches) - first)
            lr = float(run.learner.schedule.get_last_lr()[0])
            loss, own_images = accumulate(run, bar.counted(itertools.islice(micro_batches, count)), count)
            norm = update(run, own_images)
            run.losses.on_device.append(loss)
            run.clock.count(own_images * world.size)
            bar.show_loss(loss, own_images)

            ends_epoch = first == firsts[-1]
            ends_warm_up = run.clock.warmed_up is None and run.step >= WARM_UP_STEPS and not ends_epoch
            if ends_epoch or ends_warm_up or run.step % config.log_every == 0:
                read_losses(run)  # waits for the GPU, whose waits for data are then over
                run.clock.add_wait(gpu_wait())
                bar.show_log(*_log(run, recorder, lr=lr, gradient_norm=norm))
            if ends_warm_up:
                run.clock.warmed_up = run.clock.last_log
            if not ends_epoch:
                after_step()
    run.clock.stop()
    # Losses stay unlogged only when a run resumed on more ranks has too few images left for a step.
    return (run.losses.of_epoch + sum(run.losses.unlogged)) / run.clock.epoch_so_far().images


def _log(run: Run, recorder: Recorder, lr: float, gradient_norm: Tensor) -> tuple[float, float]:
    """A line about the steps since the line before, whose losses were read; returns loss and data-wait in percent."""
    loss, run.losses.unlogged = sum(run.losses.unlogged), []
    run.losses.of_epoch += loss
    lap = run.clock.lap()
    figures = {
        "loss": loss / lap.images,
        "images_per_s": lap.images_per_s,
        "data_wait_percent": lap.wait_percent,
    }
    steps = {"lr": lr, "gradient_norm": float(gradient_norm), "skipped_steps": int(run.learner.skipped)}
    world = run.setup.world
    memory = {"gpu_memory_mib": peak_memory(world) / 2**20} if world.on_gpu else {}
    recorder.metrics("train", run.epoch, run.step, **steps, **figures, **memory)
    return loss / lap.images, lap.wait_percent


def _validate(run: Run, held_out: HeldOut, split: Split, recorder: Recorder) -> Accuracy:
    """Evaluates the network, and writes the accuracy of each class."""
    config, began = run.setup.config, time.perf_counter()
    accuracy, classes = evaluate(run.learner.evaluated, held_out.batches, held_out.images, run.setup, held_out.name)
    seconds = time.perf_counter() - began
    if run.setup.world.is_main:
        with room_in(config.out):
            write_per_class(config.out / PER_CLASS, split.class_names, **dataclasses.asdict(classes))
    figures = {"top1": accuracy.top1, "top5": accuracy.top5, "loss": accuracy.loss}
    left_out = {"left_out": accuracy.left_out} if accuracy.left_out else {}
    recorder.metrics("validation", run.epoch, run.step, **figures, **left_out)
    recorder.epoch_time(run.epoch, run.clock.epoch_so_far(), seconds, run.clock.steady_epoch().images_per_s)
    return accuracy


def _write_weights(run: Run, split: Split) -> None:
    """Writes the network's weights, and what classifying images with them needs."""
    config, weights = run.setup.config, network_state(run.learner.evaluated)
    if run.setup.world.is_main:
        with room_in(config.out), doing("saving the weights", run.setup.world):
            write_state(weights, config.out / WEIGHTS, describe_run(split, config))


def _report_epoch(run: Run, loss: float, reached: str, skipped: int, recorder: Recorder) -> None:
    """Prints a line about the epoch, with what was `reached`, and one about the damaged samples of all ranks."""
    world, steady = run.setup.world, run.clock.steady_epoch()
    skipped = int(sum_over_ranks(torch.tensor(skipped, device=world.device), world))
    if not world.is_main:
        return
    line = (
        f"epoch {run.epoch}/{run.setup.config.epochs}: training loss {loss:.3f}, {reached}"
        f"{steady.images_per_s:,.0f} images/s, data-wait {steady.wait_percent:.1f}%"
    )
    tqdm.write(wrapped(line))
    if skipped:
        recorder.metrics("damaged", run.epoch, run.step, skipped=skipped)
        tqdm.write(f"{counted(skipped, 'damaged sample')} replaced so far, on all ranks")
