"""What a figure depends on beside the code and the versions of the libraries: the machine."""

import os
import platform
from pathlib import Path

import torch


def hardware() -> dict[str, str | int | float | None]:
    """The processor, the cores this process may use, memory in GiB, the GPU (None without one), the system."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()  # ARM kernels name no model
