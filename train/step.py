"""One optimizer step: the gradients of its micro-batches are added up, then they move the weights."""

import math
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from train.optim.mixing import erase, mix
from train.optim.optimizer import scale_gradients, skip_if, update_average
from train.ranks.parallel import average_weights, gradients_kept, steps_alone, whole_tensor
from train.run import Run


def accumulate(run: Run, micro_batches: Iterable[tuple[Tensor, Tensor]], count: int) -> tuple[Tensor, int]:
    """Adds up the gradients of a step's `count` micro-batches; returns the sum of this rank's losses, and how
    many images it had.

    The next micro-batch is asked for while the device still computes the one before. Every loss is divided by the
    images of a full step; `update` corrects that for a step that had fewer.
    """
    setup, learner = run.setup, run.learner
    config, world, dtype = setup.config, setup.world, setup.dtype
    total, images_seen = torch.zeros((), device=world.device), 0
    alone = steps_alone(learner.local_sgd)
    for number, (images, labels) in enumerate(micro_batches, start=1):
        if config.mixing.erase:
            # The samples of a global batch go to the ranks one by one, in turns: see shards/sampling/order.py.
            places = images_seen * world.size + world.rank + world.size * np.arange(len(labels))
            images = erase(images, config.mixing.erase, config.seed, run.step, places)
        mixed = mix(images, labels, config.mixing, config.seed, run.step)
        with gradients_kept(learner.parallel, keep=alone or number < count):
            with torch.autocast(world.device.type, dtype, enabled=dtype != torch.float32):
                logits = learner.parallel(mixed.images.contiguous(memory_format=torch.channels_last))
                loss = mixed.loss(logits, config.update.loss, config.label_smoothing)
            learner.scaler.scale(loss / setup.batch.images).backward()  # type: ignore[no-untyped-call]
        total += loss.detach()
        images_seen += len(labels)
    return total, images_seen


def update(run: Run, images: int) -> Tensor:
    """Moves the weights by the gradients of this step's `images` on this rank; returns the gradients' norm.

    The gradients are those of the mean loss over the images really seen, so clipping and weights see no difference
    between a full step and the short one at an epoch's end. A step whose norm is not finite changes nothing and is
    counted; the schedule moves on all the same, so that it ends at the last step.
    """
    learner, config, full = run.learner, run.setup.config, run.setup.batch.images
    optimizer, scaler = learner.optimizer, learner.scaler
    parameters = list(learner.network.parameters())
    scaler.unscale_(optimizer)
    if images != full:
        scale_gradients(parameters, full / images)
    norm = whole_tensor(nn.utils.clip_grad_norm_(parameters, math.inf if config.clip is None else config.clip))
    bad = ~torch.isfinite(norm)
    learner.skipped += bad
    fused = bool(optimizer.defaults.get("fused"))
    if fused and not scaler.is_enabled():
        skip_if(bad, optimizer)
    elif not fused and not scaler.is_enabled() and bad:
        # This optimizer cannot skip a step by itself, so the host reads `bad`. Without gradients no weight changes.
        optimizer.zero_grad(set_to_none=True)
    scaler.step(optimizer)
    scaler.update()
    if learner.local_sgd is not None:
        average_weights(learner.local_sgd, parameters)
    optimizer.zero_grad(set_to_none=True)
    run.step += 1
    moving = config.update
    update_average(learner.average, learner.network, run.step, moving.ema_every, warm_up=moving.ema_warm_up)
    if run.step < run.total_steps:
        learner.schedule.step()
    return norm
