"""What a run runs on: versions, device, memory. Written beside its results and shown by --check."""

import dataclasses
import platform
import resource
import sys
import time
from typing import Any

import torch

from shards.common.terminal import counted
from shards.common.versions import versions
from shards.dataset import Split
from train.checkpoints.earlier import run_id
from train.ranks.distributed import World
from train.run import Setup


def device_name(world: World) -> str:
    """The GPU's name, or the CPU's architecture and the number of threads that PyTorch uses."""
    if world.on_gpu:
        return torch.cuda.get_device_name(world.device)
    return f"CPU ({platform.machine()}, {counted(torch.get_num_threads(), 'thread')})"


def peak_memory(world: World) -> int:
    """The peak in bytes: of GPU memory held by PyTorch's tensors, or of main memory held by this process."""
    if world.on_gpu:
        return torch.cuda.max_memory_allocated(world.device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # macOS counts bytes, Linux KiB


def resolved_config(setup: Setup, split: Split) -> dict[str, Any]:
    """What config.json holds: the configuration, what was decided where it says "auto", and what the run runs on."""
    config, world = setup.config, setup.world
    return {
        **dataclasses.asdict(config),
        "micro_batch": setup.batch.micro_batch if config.micro_batch == "auto" else config.micro_batch,
        "resolved_precision": str(setup.dtype).removeprefix("torch."),
        "resolved_device": device_name(world),
        "ranks": world.size,
        "classes": len(split.class_names),
        "source": split.manifest.source,
        "fingerprint": split.manifest.fingerprint,
        "torchrun": run_id(),
        "versions": versions(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
