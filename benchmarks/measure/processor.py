"""Processor time of this process and everything it started, from /proc: what a figure costs, whoever else is busy."""

import contextlib
import os
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
# In /proc/PID/stat behind the name in brackets: the parent, and the ticks of the process (user, system) and of
# the children it has waited for (user, system).
_PARENT, _TIMES = 1, slice(11, 15)


def processor_seconds() -> float:
    """Seconds of processor time, user and system, that this process and its descendants have used so far.

    Descendants that have ended count as soon as somebody waited for them. To a hundredth of a second and process.
    """
    parents, ticks = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            # A process may end while its file is read.
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                pid = int(entry.name)
                parents[pid], ticks[pid] = int(fields[_PARENT]), sum(int(each) for each in fields[_TIMES])
    own = {os.getpid()}
    fresh = own
    while fresh:
        fresh = {pid for pid, parent in parents.items() if parent in fresh} - own
        own |= fresh
    return sum(ticks.get(pid, 0) for pid in own) / _TICKS
