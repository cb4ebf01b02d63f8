"""What a run stands on: versions, device, memory. Kept beside its results and shown by --check."""

import dataclasses
import os
import platform
import resource
import sys
import time
from typing import Any

import torch

from shards.common.versions import versions
from shards.dataset import Split
from train.config import Config
from train.ranks.distributed import World


def device_name(world: World) -> str:
    """The device in words: the GPU's name, or the CPU's architecture and the threads that PyTorch uses."""
    if world.on_gpu:
        return torch.cuda.get_device_name(world.device)
    return f"CPU ({platform.machine()}, {torch.get_num_threads()} threads)"


def peak_memory(world: World) -> int:
    """Most bytes held so far: of GPU memory by PyTorch's tensors, or of main memory by this process."""
    if world.on_gpu:
        return torch.cuda.max_memory_allocated(world.device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # macOS counts bytes, Linux KiB


def run_id() -> str | None:
    """What torchrun calls the job (`--rdzv-id`), the same for all starts of its ranks; None where it has no name."""
    name = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    return None if name == "none" else name


def circumstances(config: Config, split: Split, world: World, dtype: torch.dtype) -> dict[str, Any]:
    """What config.json holds: the resolved configuration, and what the run stands on."""
    return {
        **dataclasses.asdict(config),
        "resolved_precision": str(dtype).removeprefix("torch."),
        "resolved_device": device_name(world),
        "ranks": world.size,
        "classes": len(split.class_names),
        "source": split.manifest.source,
        "fingerprint": split.manifest.fingerprint,
        "torchrun": run_id(),
        "versions": versions(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
