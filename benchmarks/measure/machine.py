"""The machine that figures are taken on: its hardware, and the processor time and memory that processes use."""

import contextlib
import os
import platform
import sys
from pathlib import Path
from typing import Literal

from shards.common.errors import ShardfeedError
from shards.common.machine import usable_cores

WAIT_POLICY = "OMP_WAIT_POLICY"
_TICKS = os.sysconf("SC_CLK_TCK")
# Fields of /proc/PID/stat after the name in brackets: the parent, and the ticks (user, system) of the process and of
# the children that it has waited for.
_PARENT, _TIMES = 1, slice(11, 15)
# Vector units by their flags in /proc/cpuinfo, the widest first.
_VECTORS = {"avx512f": "AVX-512", "avx2": "AVX2", "avx": "AVX"}


def hardware() -> dict[str, str | int | float | bool | None]:
    """The processor, the cores this process may use, memory in GiB, the GPU (None without one), the system.

    With a GPU also the version of nvJPEG and the JPEG engines that it finds, which decide what really decodes.
    """
    import torch  # not at the top: processes that measure memory must not load it

    from shards.decode import nvjpeg

    decoding: dict[str, str | int | None] = {}
    if torch.cuda.is_available():
        version = nvjpeg.version()
        decoding = {"nvjpeg": version and f"{version[0]}.{version[1]}", "jpeg_engines": nvjpeg.engines(0)}
    return {
        "cpu": processor(),
        "cores": usable_cores(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        **decoding,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }


def processor(cpuinfo: str | None = None) -> str:
    """The processor's name, family and model, and its widest vectors: virtual machines name several kinds alike.

    cpuinfo: the text of /proc/cpuinfo; that of this machine, if it is not given.
    """
    lines = (Path("/proc/cpuinfo").read_text() if cpuinfo is None else cpuinfo).splitlines()
    facts: dict[str, str] = {}
    for key, _, value in (line.partition(":") for line in lines):
        facts.setdefault(key.strip(), value.strip())  # of the first core
    name = facts.get("model name") or platform.processor() or platform.machine()  # ARM kernels name no model
    kinds = [f"{told} {facts[key]}" for key, told in (("cpu family", "family"), ("model", "model")) if key in facts]
    flags = facts.get("flags", "").split()
    kinds += [told for flag, told in _VECTORS.items() if flag in flags][:1]
    return f"{name} ({', '.join(kinds)})" if kinds else name


def processor_seconds() -> float:
    """Processor time, user and system, that this process and its descendants have used so far, in seconds.

    A descendant that has ended counts once its parent has waited for it. The resolution is 0.01 s per process.
    """
    parents, ticks = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # the process may end while its file is read
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                pid = int(entry.name)
                parents[pid], ticks[pid] = int(fields[_PARENT]), sum(int(each) for each in fields[_TIMES])
    family = fresh = {os.getpid()}
    while fresh:
        fresh = {pid for pid, parent in parents.items() if parent in fresh} - family
        family = family | fresh
    return sum(ticks.get(pid, 0) for pid in family) / _TICKS


def memory_mb(kind: Literal["now", "peak"], process: int | str = "self") -> float:
    """Resident memory of a living process in MB (10^6 bytes), now or at its peak, mapped files included."""
    name = {"now": "VmRSS:", "peak": "VmHWM:"}[kind]
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024 / 1e6
    raise ShardfeedError(f"/proc/{process}/status does not say how much memory the process uses")


def sleep_while_waiting() -> None:
    """Sets OMP_WAIT_POLICY=PASSIVE, as `python -m train` does, unless the variable is set.

    PyTorch's idle threads then sleep and leave the cores to the decoder. PyTorch reads the variable when it is loaded;
    where that has happened, this program is started again: same command line, same process id.
    """
    if WAIT_POLICY in os.environ:
        return
    os.environ[WAIT_POLICY] = "PASSIVE"
    if "torch" in sys.modules:
        sys.stdout.flush()
        os.execve(sys.executable, sys.orig_argv, os.environ)
