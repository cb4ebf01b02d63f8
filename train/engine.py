"""The training run, from top to bottom: open the data, train an epoch, evaluate, save, and again.

    from train.config import Config
    from train.engine import train
    result = train(Config(data=Path("DIR"), epochs=5))

Under torchrun each process calls the same function. The results lie in `config.out`: see train/metrics.py for
the files besides the weights.
"""

import itertools
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from shards.dataset import choose_split
from shards.errors import ShardfeedError
from train.checkpoint import WEIGHTS, load_weights, refuse_results, save_weights
from train.config import Config
from train.data import HELD_OUT, TRAINING, Batches, held_out_loader, training_loader
from train.distributed import World, average_statistics, gradients_kept, joined, sum_over_ranks
from train.environment import circumstances
from train.evaluation import Accuracy, bar_disabled, evaluate
from train.metrics import Reading, Recorder
from train.optim import choose_dtype, scale_gradients
from train.run import Run, begin, make_network

# Optimizer steps left out of the throughput: libraries choose their algorithms and the loader fills its queue.
WARM_UP_STEPS = 3


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

    Raises UsageError for a configuration that fits neither the machine nor the data set, or an `out` that holds
    results; ShardfeedError if the loss stops being finite.
    """
    began = time.perf_counter()
    refuse_results(config.out)
    split, held_out = choose_split(config.data, [TRAINING]), choose_split(config.data, HELD_OUT)
    with joined(config.device) as world:
        dtype = choose_dtype(config.precision, world.device)
        network = make_network(config, len(split.class_names), world)
        with (
            training_loader(split, config, world, dtype) as batches,
            held_out_loader(held_out, config, world, dtype) as held_out_batches,
            Recorder(config.out if world.is_main else None, circumstances(config, split, world, dtype)) as recorder,
        ):
            run = begin(network, config, world, dtype, micro_batches=len(batches))
            for epoch in range(1, config.epochs + 1):
                batches.set_epoch(epoch - 1)
                before = run.clock.read()
                loss = train_epoch(run, batches, config, world, recorder, epoch)
                after = run.clock.read()

                average_statistics(network, world)
                asked = time.perf_counter()
                accuracy = evaluate(network, held_out_batches, len(held_out), world, dtype)
                validation_s = time.perf_counter() - asked
                if world.is_main:
                    save_weights(network, config.out / WEIGHTS)

                steady = after - max(before, run.warm or before, key=lambda reading: reading.seconds)
                figures = {"top1": accuracy.top1, "top5": accuracy.top5, "loss": accuracy.loss}
                recorder.metrics("validation", epoch, run.step, **figures)
                recorder.epoch_time(epoch, after - before, validation_s, steady.images_per_s)
                if world.is_main:
                    tqdm.write(_epoch_line(epoch, config.epochs, loss, accuracy, steady))
                if batches.skipped:
                    recorder.metrics("damaged", epoch, run.step, skipped=batches.skipped)
                    tqdm.write(f"rank {world.rank}: {batches.skipped} damaged samples replaced so far")
            total = run.clock.read()
            images_per_s = (total - (run.warm or Reading())).images_per_s
            recorder.total_time(total, time.perf_counter() - began, images_per_s)
    return Result(
        top1=accuracy.top1,
        top5=accuracy.top5,
        loss=accuracy.loss,
        images_per_s=images_per_s,
        train_seconds=total.seconds,
        steps=run.step,
        weights=config.out / WEIGHTS,
    )


def train_epoch(run: Run, batches: Batches, config: Config, world: World, recorder: Recorder, epoch: int) -> float:
    """One pass over `batches`; returns the mean loss over all ranks' images.

    An optimizer step takes `accumulate` micro-batches, and the epoch's last step what is left. Losses stay on the
    device until they are logged: reading one makes the host wait for the GPU.
    """
    run.model.train()
    losses: list[Tensor] = []  # of each step since the last log, summed over this rank's images
    loss_of_epoch = 0.0
    run.clock.start()
    start = logged = run.clock.read()
    micro_batches = run.clock.timed(batches)
    firsts = range(0, len(batches), config.accumulate)
    with tqdm(
        firsts, desc=f"epoch {epoch}/{config.epochs}", unit="step", leave=False, disable=bar_disabled(world)
    ) as bar:
        for first in bar:
            count = min(config.accumulate, len(batches) - first)
            lr = float(run.schedule.get_last_lr()[0])
            loss, images = _accumulate(run, itertools.islice(micro_batches, count), count, config, world)
            norm = _step(run, images, config)
            losses.append(loss)
            run.clock.count(images * world.size)

            ends_epoch = first == firsts[-1]
            ends_warm_up = run.warm is None and run.step >= WARM_UP_STEPS and not ends_epoch
            if not (ends_epoch or ends_warm_up or run.step % config.log_every == 0):
                continue
            sums = sum_over_ranks(torch.stack(losses), world).tolist()
            _stop_unless_finite(sums, run.step, epoch)
            losses = []
            loss_of_epoch += sum(sums)
            now = run.clock.read()
            window, logged = now - logged, now
            if ends_warm_up:
                run.warm = now
            figures = {
                "loss": sum(sums) / window.images,
                "images_per_s": window.images_per_s,
                "data_wait_percent": window.wait_percent,
            }
            recorder.metrics("train", epoch, run.step, lr=lr, gradient_norm=float(norm), **figures)
            bar.set_postfix_str("loss {:.3f}, {:,.0f} images/s, data-wait {:.1f}%".format(*figures.values()))
    run.clock.stop()
    return loss_of_epoch / (logged - start).images


def _accumulate(
    run: Run, micro_batches: Iterable[tuple[Tensor, Tensor]], count: int, config: Config, world: World
) -> tuple[Tensor, int]:
    """Adds up the gradients of a step's `count` micro-batches; returns the sum of this rank's losses, and its images.

    Every loss is divided by the images of a full step; `_step` corrects that for a step that had fewer.
    """
    total, images_seen = torch.zeros((), device=world.device), 0
    for number, (images, labels) in enumerate(micro_batches, start=1):
        with gradients_kept(run.model, keep=number < count):
            with torch.autocast(world.device.type, run.dtype, enabled=run.dtype != torch.float32):
                logits = run.model(images.contiguous(memory_format=torch.channels_last))
                loss = F.cross_entropy(logits, labels, reduction="sum")
            run.scaler.scale(loss / _full_step(config)).backward()  # type: ignore[no-untyped-call]
        total += loss.detach()
        images_seen += len(labels)
    return total, images_seen


def _step(run: Run, images: int, config: Config) -> Tensor:
    """Moves the weights by the gradients of this step's `images` on this rank; returns the gradients' norm.

    The gradients are those of the mean loss over the images really seen, so clipping and weights see no difference
    between a full step and the short one at an epoch's end. The schedule goes on also where the scaler skips the
    step, so that it ends at the last one.
    """
    parameters = list(run.network.parameters())
    run.scaler.unscale_(run.optimizer)
    if images != _full_step(config):
        scale_gradients(parameters, _full_step(config) / images)
    norm = nn.utils.clip_grad_norm_(parameters, config.clip)
    run.scaler.step(run.optimizer)
    run.scaler.update()
    run.optimizer.zero_grad(set_to_none=True)
    run.step += 1
    if run.step < run.total_steps:
        run.schedule.step()
    return norm


def evaluate_file(config: Config, path: Path) -> Accuracy:
    """The accuracy of saved weights on the held-out split. Raises as `load_weights` does."""
    held_out = choose_split(config.data, HELD_OUT)
    with joined(config.device) as world:
        dtype = choose_dtype(config.precision, world.device)
        network = make_network(config, len(held_out.class_names), world)
        load_weights(network, path)
        with held_out_loader(held_out, config, world, dtype) as batches:
            return evaluate(network, batches, len(held_out), world, dtype)


def _stop_unless_finite(losses: list[float], last_step: int, epoch: int) -> None:
    """Raises ShardfeedError for the first of the losses, which end at `last_step`, that is infinite or not a number."""
    for position, loss in enumerate(losses):
        if not math.isfinite(loss):
            step = last_step - len(losses) + 1 + position
            raise ShardfeedError(
                f"the loss is {loss} at optimizer step {step}, in epoch {epoch}: training has diverged; "
                "lower --max-lr, or take --precision bfloat16 or float32"
            )


def _full_step(config: Config) -> int:
    """Images of one rank in an optimizer step that is not cut short by the epoch's end."""
    return config.micro_batch * config.accumulate


def _epoch_line(epoch: int, epochs: int, loss: float, accuracy: Accuracy, speed: Reading) -> str:
    return (
        f"epoch {epoch}/{epochs}: loss {loss:.3f}, top-1 {accuracy.top1:.2f}%, top-5 {accuracy.top5:.2f}%, "
        f"{speed.images_per_s:,.0f} images/s, data-wait {speed.wait_percent:.1f}%"
    )
