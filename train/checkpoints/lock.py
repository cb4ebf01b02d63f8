"""Keeps two runs from writing into one directory, by a lock that ends with the process that holds it.

The lock is the kernel's, on a file that the run writes to anyway, so nothing is left behind by a killed run. On NFS the
server keeps it and machines exclude each other; after the crash of a machine it is freed when the lease ends.
"""

import errno
import fcntl
import os
import time
from pathlib import Path
from typing import IO

from shards.common.errors import ShardfeedError

# NFSv4 frees the locks of a machine that is gone after 90 seconds; torchrun has ranks start again earlier.
PATIENCE_S, PAUSE_S = 120.0, 0.5


def open_alone(path: Path) -> IO[str]:
    """Opens a file to append to, locked until it is closed; makes what is missing of it and its directory.

    Opening and closing it elsewhere in the same process ends the lock, as POSIX has it. Ranks that torchrun has
    started again wait for the lock. Raises ShardfeedError where another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a", encoding="utf-8")
    until = time.monotonic() + (PATIENCE_S if os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0") != "0" else 0.0)
    while True:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            # Some file systems have no locks (Lustre without `-o flock`); there, care is left to the user.
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                return file
            if time.monotonic() >= until:
                file.close()
                raise ShardfeedError(
                    f"another run is writing into {path.parent}: wait for it, stop it, or choose another --out"
                ) from None
            time.sleep(PAUSE_S)
        else:
            return file
