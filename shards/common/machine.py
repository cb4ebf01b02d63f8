"""What this machine, and the container around this process, allow: open files, memory."""

import contextlib
import resource
from pathlib import Path

from shards.common.errors import ShardfeedError


def allow_open_files(count: int) -> None:
    """Raises the soft limit of open files if need be: ImageNet has 1,282 training shards, the usual limit is 1,024."""
    # What is open counts too: a process may hold several loaders. The rest is for what is opened later.
    need = sum(1 for _ in Path("/proc/self/fd").iterdir()) + count + 256
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < need:
        if hard != resource.RLIM_INFINITY and hard < need:
            raise ShardfeedError(
                f"{count} shards need {need} open files, this system allows {hard}: raise the hard limit "
                "(ulimit -Hn, limits.conf) or make larger shards (--shard-size)"
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (need, hard))


def available_memory() -> int:
    """Bytes that this process can still take: of the machine, and of its control group where that has a limit."""
    room = _fields(Path("/proc/meminfo"))["MemAvailable:"] * 1024
    with contextlib.suppress(OSError, ValueError, KeyError):  # no control groups, or no limit ("max")
        group = Path("/sys/fs/cgroup")
        use = _fields(group / "memory.stat")
        # The page cache counts as used there, but gives way; shared memory, which counts as part of it, does not.
        taken = int((group / "memory.current").read_text()) - (use["file"] - use["shmem"])
        room = min(room, int((group / "memory.max").read_text()) - taken)
    return room


def _fields(path: Path) -> dict[str, int]:
    """The first number of each line of a file of the kernel, by the line's first word."""
    return {words[0]: int(words[1]) for words in map(str.split, path.read_text().splitlines())}
