"""One optimizer step: the gradients of its micro-batches, added up, and what they do to the weights."""

import math
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from train.config import Config
from train.optim.averaging import follow
from train.optim.batch_split import portions
from train.optim.mixing import erase, mix
from train.optim.optimizer import leave_out, scale_gradients
from train.ranks.distributed import World
from train.ranks.parallel import average_weights, gradients_kept, is_apart, whole
from train.run import Run


def accumulate(
    run: Run, micro_batches: Iterable[tuple[Tensor, Tensor]], count: int, config: Config, world: World
) -> tuple[Tensor, int]:
    """Adds up the gradients of a step's `count` micro-batches; returns the sum of this rank's losses, and its images.

    Every loss is divided by the images of a full step; `update` corrects that for a step that had fewer.
    """
    total, images_seen = torch.zeros((), device=world.device), 0
    full, apart = portions(config, world).images, is_apart(run.averager)
    for number, (images, labels) in enumerate(micro_batches, start=1):
        if config.mixing.erase:
            # Sharing take turns inside the global batch: see shards/sampling/order.py.
            places = images_seen * world.size + world.rank + world.size * np.arange(len(labels))
            images = erase(images, config.mixing.erase, config.seed, run.step, places)
        mixed = mix(images, labels, config.mixing, config.seed, run.step)
        with gradients_kept(run.model, keep=apart or number < count):
            with torch.autocast(world.device.type, run.dtype, enabled=run.dtype != torch.float32):
                logits = run.model(mixed.images.contiguous(memory_format=torch.channels_last))
                loss = mixed.loss(logits, config.label_smoothing)
            run.scaler.scale(loss / full).backward()  # type: ignore[no-untyped-call]
        total += loss.detach()
        images_seen += len(labels)
    return total, images_seen


def update(run: Run, images: int, config: Config, world: World) -> Tensor:
    """Moves the weights by the gradients of this step's `images` on this rank; returns the gradients' norm.

    The gradients are those of the mean loss over the images really seen, so clipping and weights see no difference
    between a full step and the short one at an epoch's end. Where the norm is not finite, the step changes nothing
    and is counted. The schedule goes on also then, so that it ends at the last step.
    """
    parameters = list(run.network.parameters())
    run.scaler.unscale_(run.optimizer)
    full = portions(config, world).images
    if images != full:
        scale_gradients(parameters, full / images)
    norm = whole(nn.utils.clip_grad_norm_(parameters, math.inf if config.clip is None else config.clip))
    bad = ~torch.isfinite(norm)
    run.skipped += bad
    fused = bool(run.optimizer.defaults.get("fused"))
    if fused and not run.scaler.is_enabled():
        leave_out(run.optimizer, bad)
    # Neither fused nor under a scaler, an optimizer cannot leave a step out: the host waits for the device.
    if fused or run.scaler.is_enabled() or not bad:
        run.scaler.step(run.optimizer)
        run.scaler.update()
    if run.averager is not None:
        average_weights(run.averager, parameters)
    run.optimizer.zero_grad(set_to_none=True)
    run.step += 1
    follow(run.average, run.network, run.step, config.update.ema_every)
    if run.step < run.total_steps:
        run.schedule.step()
    return norm
