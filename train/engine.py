"""The training run, from top to bottom: open the data, train an epoch, evaluate, save, and again.

    from train.config import Config
    from train.engine import train
    result = train(Config(data=Path("DIR"), epochs=5))

Under torchrun each process calls the same function. The results lie in `config.out`: see train/report/metrics.py for
the files besides the weights.
"""

import dataclasses
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from model.weights import About, write_state
from shards.common.signals import StopRequest
from shards.dataset import Split, choose_split
from train.checkpoints.resume import claim, find_checkpoint, refuse_results
from train.checkpoints.saver import Keeper
from train.checkpoints.snapshot import identity
from train.checkpoints.weights import WEIGHTS, describe
from train.config import Config
from train.data import HELD_OUT, TRAINING, Batches, held_out_loader, rest_of_epoch, training_loader
from train.evaluation import Accuracy, bar_disabled, evaluate
from train.optim.batch_split import portions
from train.optim.gpu_memory import choose_micro_batch, memory_advice
from train.optim.optimizer import choose_dtype
from train.optim.sizes import changes_size, training_size
from train.ranks.distributed import World, joined, sum_over_ranks, wait_for_all
from train.ranks.parallel import network_state
from train.report.environment import circumstances, peak_memory
from train.report.metrics import Reading, Recorder, room_in
from train.report.per_class import write_per_class
from train.run import Run, begin, make_network, read_losses
from train.step import accumulate, update

# Optimizer steps left out of the throughput: libraries choose their algorithms and the loader fills its queue.
WARM_UP_STEPS = 3

PER_CLASS = "per_class.csv"


@dataclass(frozen=True)
class Result:
    """What a run reached on the held-out split, in percent, how fast it trained, and where its weights are."""

    top1: float
    top5: float
    loss: float
    images_per_s: float
    train_seconds: float
    steps: int
    weights: Path


def train(config: Config) -> Result:
    """Trains as `config` says and returns what was reached; the weights are saved after every epoch.

    A run that was cut short goes on from its newest checkpoint: see train/checkpoints/saver.py.

    Raises UsageError for a configuration that fits neither the machine nor the data set, or an `out` that holds
    other results; ShardfeedError if the loss stops being finite or a checkpoint cannot be written; StoppedBySignal,
    once the state is saved, after SIGTERM or SIGUSR1.
    """
    began = time.perf_counter()
    refuse_results(config)
    split, held_out = (
        choose_split(config.data, [TRAINING], config.feeding.cache),
        choose_split(config.data, HELD_OUT, config.feeding.cache),
    )
    with joined(config.device) as world, StopRequest() as stop:
        dtype = choose_dtype(config, world.device)
        network = make_network(config, len(split.class_names), world)
        config = choose_micro_batch(network, config, world, dtype)
        with (
            memory_advice(config, world),
            training_loader(split, config, world, dtype) as batches,
            held_out_loader(held_out, config, world, dtype) as held_out_batches,
        ):
            wait_for_all(world, "loaders")
            run = begin(network, config, world, dtype, micro_batches=len(batches), began=began)
            own = identity(config, split, dtype)
            found = find_checkpoint(config, world, own)
            log = claim(config, world, found)
            resolved, out = circumstances(config, split, world, dtype), config.out if world.is_main else None
            kept = None if found is None else found.kept
            with room_in(config.out), Recorder(out, resolved, kept, wandb=config.wandb, log=log) as recorder:
                keeper = Keeper(config, world, recorder, own, stop)
                if found is not None:
                    keeper.resume(run, batches, found)
                    del found  # as large as the run itself
                for epoch in range(max(1, run.epoch), config.epochs + 1):
                    if epoch > run.epoch and changes_size(config, epoch):
                        batches.set_size(training_size(config, epoch))
                    rest = rest_of_epoch(batches, config, world)
                    loss = train_epoch(run, rest, config, world, recorder, epoch, partial(keeper.at_step, run, batches))
                    if len(rest):
                        run.settle(world)
                        keeper.at_epoch_end(run, batches)
                    after = run.clock.read()

                    asked = time.perf_counter()
                    accuracy, classes = evaluate(run.result, held_out_batches, len(held_out), config, world, dtype)
                    validation_s = time.perf_counter() - asked
                    keeper.keep(run, accuracy.top1)
                    weights = network_state(run.result)
                    if world.is_main:
                        write_state(weights, config.out / WEIGHTS, _about(config, held_out))
                        write_per_class(config.out / PER_CLASS, held_out.class_names, **dataclasses.asdict(classes))

                    steady = after - max(run.entered, run.warm or run.entered, key=lambda reading: reading.seconds)
                    figures = {"top1": accuracy.top1, "top5": accuracy.top5, "loss": accuracy.loss}
                    recorder.metrics("validation", epoch, run.step, **figures)
                    recorder.epoch_time(epoch, after - run.entered, validation_s, steady.images_per_s)
                    if world.is_main:
                        tqdm.write(_epoch_line(epoch, config.epochs, loss, accuracy, steady))
                    skipped = int(sum_over_ranks(torch.tensor(batches.skipped, device=world.device), world))
                    if skipped and world.is_main:
                        recorder.metrics("damaged", epoch, run.step, skipped=skipped)
                        tqdm.write(f"{skipped} damaged samples replaced so far, on all ranks")
                    batches.set_epoch(epoch)
                total = run.clock.read()
                images_per_s = (total - (run.warm or Reading())).images_per_s
                recorder.total_time(total, time.perf_counter() - run.began, images_per_s)
    return Result(
        top1=accuracy.top1,
        top5=accuracy.top5,
        loss=accuracy.loss,
        images_per_s=images_per_s,
        train_seconds=total.seconds,
        steps=run.step,
        weights=config.out / WEIGHTS,
    )


def train_epoch(
    run: Run,
    batches: Batches,
    config: Config,
    world: World,
    recorder: Recorder,
    epoch: int,
    after_step: Callable[[], None] = lambda: None,
) -> float:
    """One pass over `batches`, or what is left of it; returns the mean loss over all ranks' images of the epoch.

    An optimizer step takes as many micro-batches as make up `batch`, and the epoch's last step what is left.
    Losses stay on the device until they are logged or saved: reading one makes the host wait for the GPU.
    `after_step` is called between two steps.
    """
    run.model.train()
    run.clock.start()
    if epoch != run.epoch:
        run.enter(epoch)
    micro_batches, in_a_step = run.clock.timed(batches), portions(config, world).accumulate
    firsts = range(0, len(batches), in_a_step)
    with tqdm(
        firsts, desc=f"epoch {epoch}/{config.epochs}", unit="step", leave=False, disable=bar_disabled(world)
    ) as bar:
        for first in bar:
            count = min(in_a_step, len(batches) - first)
            lr = float(run.schedule.get_last_lr()[0])
            loss, images = accumulate(run, itertools.islice(micro_batches, count), count, config, world)
            norm = update(run, images, config, world)
            run.losses.append(loss)
            run.clock.count(images * world.size)

            ends_epoch = first == firsts[-1]
            ends_warm_up = run.warm is None and run.step >= WARM_UP_STEPS and not ends_epoch
            if ends_epoch or ends_warm_up or run.step % config.log_every == 0:
                figures = _log(run, config, world, recorder, lr=lr, gradient_norm=norm)
                bar.set_postfix_str("loss {:.3f}, {:,.0f} images/s, data-wait {:.1f}%".format(*figures.values()))
            if ends_warm_up:
                run.warm = run.logged
            if not ends_epoch:
                after_step()
    run.clock.stop()
    # Nothing is unlogged but where a run goes on, on more ranks, with too few images left for a step.
    return (run.loss_of_epoch + sum(run.unlogged)) / (run.clock.read() - run.entered).images


def _log(
    run: Run, config: Config, world: World, recorder: Recorder, lr: float, gradient_norm: Tensor
) -> dict[str, float]:
    """A line about the steps since the last one: loss, images/s, and data-wait in percent."""
    read_losses(run, config, world)
    loss, run.unlogged = sum(run.unlogged), []
    now = run.clock.read()
    window, run.logged = now - run.logged, now
    run.loss_of_epoch += loss
    figures = {
        "loss": loss / window.images,
        "images_per_s": window.images_per_s,
        "data_wait_percent": window.wait_percent,
    }
    steps = {"lr": lr, "gradient_norm": float(gradient_norm), "skipped_steps": int(run.skipped)}
    memory = {"gpu_memory_mib": peak_memory(world) / 2**20} if world.on_gpu else {}
    recorder.metrics("train", run.epoch, run.step, **steps, **figures, **memory)
    return figures


def _about(config: Config, held_out: Split) -> About:
    size, resize = config.sizes.val_size or config.size, config.sizes.val_resize
    return describe(held_out, model=config.model, size=size, resize=resize, blur_pool=config.blur_pool)


def _epoch_line(epoch: int, epochs: int, loss: float, accuracy: Accuracy, speed: Reading) -> str:
    return (
        f"epoch {epoch}/{epochs}: loss {loss:.3f}, top-1 {accuracy.top1:.2f}%, top-5 {accuracy.top5:.2f}%, "
        f"{speed.images_per_s:,.0f} images/s, data-wait {speed.wait_percent:.1f}%"
    )
