"""What this machine, and the container around this process, allow: open files."""

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
