"""What this machine, and the containers around this process, allow: cores, memory, open files.

Containers and job schedulers limit a process by control groups, which nest: a limit of any group around the process
holds. Version 2 has one tree of groups, version 1 one for each controller, and both can be mounted at once. See
https://docs.kernel.org/admin-guide/cgroup-v2.html and cgroup-v1/memory.html.
"""

import contextlib
import math
import os
import resource
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from shards.common.errors import ShardfeedError, UsageError

ROOT = Path("/")
# Files opened besides those that are asked for: the index, logs, sockets, libraries loaded late. `FEW_FILES` is what a
# loader's epoch was seen to need with some room; the spare is asked for where the limit allows it.
FEW_FILES, SPARE_FILES = 16, 256
# Threads or processes that may be asked for: four for each core of the largest machines. Where the system refuses a
# thread, DALI's C++ ends the whole process without a message.
MOST_WORKERS = 1024


def usable_cores(root: Path = ROOT) -> int:
    """Cores that this process may use: by its affinity and by the CPU quotas of its control groups; at least one.

    A quota of 1.5 cores gives 2: the second one is throttled, and not idle.
    """
    quota = cpu_quota(root)
    cores = len(os.sched_getaffinity(0))
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def cpu_quota(root: Path = ROOT) -> float | None:
    """The smallest CPU quota of the control groups around this process, in cores; None where there is none."""
    quotas = []
    for group in _groups(root, "cpu"):
        with contextlib.suppress(OSError, ValueError, ZeroDivisionError):  # no such file, or "max" for no limit
            if (group / "cpu.max").exists():
                quota, period = (int(word) for word in (group / "cpu.max").read_text().split())
            else:
                quota, period = _number(group / "cpu.cfs_quota_us"), _number(group / "cpu.cfs_period_us")
            if quota > 0:
                quotas.append(quota / period)
    return min(quotas, default=None)


def available_memory(root: Path = ROOT) -> int:
    """Bytes that this process can still take: of the machine, and of each control group with a limit."""
    room = _fields(root / "proc/meminfo")["MemAvailable:"] * 1024
    for group in _groups(root, "memory"):
        with contextlib.suppress(OSError, ValueError, KeyError):  # no such file, or "max" for no limit
            room = min(room, _room_in(group))
    return max(0, room)


def allow_open_files(count: int) -> None:
    """Raises the soft limit of open files if need be: ImageNet has 1,282 training shards, the usual limit is 1,024."""
    # Files that are open already count too: a process may hold several loaders.
    need = open_files() + count + FEW_FILES
    wanted = need - FEW_FILES + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    if hard != resource.RLIM_INFINITY:
        if hard < need:
            raise ShardfeedError(
                f"{count} files need {need} open files, this system allows {hard}: raise the "
                "hard limit (ulimit -Hn, limits.conf), or make larger shards (`python -m preprocess --shard-size`)"
            )
        wanted = min(wanted, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def open_files() -> int:
    """Files that this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def check_workers(name: str, count: int) -> int:
    """`count` threads or processes. Raises UsageError, which names the option, for a number that no machine can use."""
    if not 1 <= count <= MOST_WORKERS:
        raise UsageError(f"{name} must be from 1 to {MOST_WORKERS:,}, not {count:,}")
    return count


def _room_in(group: Path) -> int:
    """Bytes left below a group's memory limit."""
    use = _fields(group / "memory.stat")
    # The page cache counts as used, but gives way; shared memory, which counts as part of it, does not.
    if (group / "memory.max").exists():
        return _number(group / "memory.max") - _number(group / "memory.current") + use["file"] - use["shmem"]
    # Without a limit, version 1 gives one of about 2^63. `total_` includes the groups below.
    limit, used = _number(group / "memory.limit_in_bytes"), _number(group / "memory.usage_in_bytes")
    return limit - used + use["total_cache"] - use.get("total_shmem", 0)


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """The directories of the control groups that limit this process: its own, then each one around it."""
    try:
        lines = (root / "proc/self/mountinfo").read_text().splitlines()
        own = _own_groups((root / "proc/self/cgroup").read_text())
    except OSError:
        return
    for line in lines:
        # "36 35 0:30 ROOT MOUNT_POINT OPTIONS - cgroup2 cgroup SUPER_OPTIONS", see proc_pid_mountinfo(5)
        before, _, after = line.partition(" - ")
        words, kind = before.split(), after.split()
        if len(words) < 5 or len(kind) < 3 or kind[0] not in ("cgroup", "cgroup2"):
            continue
        if kind[0] == "cgroup" and controller not in kind[2].split(","):
            continue
        path = own.get("" if kind[0] == "cgroup2" else controller)
        if path is None:
            continue
        mount = root / _unescaped(words[4]).lstrip("/")
        # A container may see its own group as the root of the mount, and not the groups around it.
        below = PurePosixPath("/")
        with contextlib.suppress(ValueError):
            below /= PurePosixPath(path).relative_to(_unescaped(words[3]))
        for group in (below, *below.parents):
            yield mount / str(group).lstrip("/")


def _own_groups(text: str) -> dict[str, str]:
    """The path of this process's group by controller ("" for version 2), from lines like "4:cpu,cpuacct:/path"."""
    groups = {}
    for line in text.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        groups.update(dict.fromkeys(controllers.split(","), path))
    return groups


def _unescaped(path: str) -> str:
    """A path of mountinfo, which writes blanks and backslashes as octal numbers."""
    for code in (r"\040", r"\011", r"\012", r"\134"):
        path = path.replace(code, chr(int(code[1:], 8)))
    return path


def _number(path: Path) -> int:
    return int(path.read_text())


def _fields(path: Path) -> dict[str, int]:
    """The first number of each line of a file of the kernel, by the line's first word."""
    return {words[0]: int(words[1]) for words in map(str.split, path.read_text().splitlines()) if len(words) > 1}
