"""Kills jobs with SIGKILL, as often as it takes. Run in a process of its own: python -m tests.helpers.kill.

Importing the libraries costs seconds, so that is done once: every job is a fork, in a process group of its own.
"""

import itertools
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import preprocess.run  # noqa: F401  # imported before forking, like the next
from preprocess.__main__ import main
from preprocess.images.convert import convert
from tests.conftest import jpeg, photo
from tests.helpers.jobs import tree

# What makes names and takes them away.
STEPS = ("replace", "rename", "link", "unlink", "rmdir")


def fork(job: Callable[[], int]) -> int:
    """Runs `job` in a forked process, silent and in its own group; returns the process id."""
    process = os.fork()
    if process == 0:
        os.setsid()
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        os._exit(job())
    return process


def status_of(process: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def kill_at_random(arguments: list[str], out: Path, kills: int) -> int:
    """Starts a job again and again, each time killing its group at a random moment; returns how often it finished."""
    started = time.monotonic()
    assert status_of(fork(lambda: main([arguments[0], f"{out}.whole", *arguments[1:]]))) == 0
    whole = tree(Path(f"{out}.whole"))
    longest = time.monotonic() - started
    moments = random.Random(0)
    finished = 0
    while kills:
        process = fork(lambda: main([arguments[0], str(out), *arguments[1:]]))
        time.sleep(moments.uniform(0, 0.6 * longest))
        # Killed before it made its group, it is alone.
        (os.killpg if _has_group(process) else os.kill)(process, signal.SIGKILL)
        status = status_of(process)
        check_names(out, whole)
        if status == 0:
            assert tree(out) == whole
            shutil.rmtree(out)
            finished += 1
        else:
            assert status == -signal.SIGKILL
            kills -= 1
    assert status_of(fork(lambda: main([arguments[0], str(out), *arguments[1:]]))) == 0
    assert tree(out) == whole
    return finished


def kill_at_every_step(arguments: list[str], out: Path) -> int:
    """Kills one job before each single step that changes a name, and resumes it; returns the number of steps."""
    assert status_of(fork(lambda: main([arguments[0], f"{out}.whole", *arguments[1:]]))) == 0
    whole = tree(Path(f"{out}.whole"))
    for step in itertools.count():
        status = status_of(fork(lambda step=step: _die_at(step, [arguments[0], str(out), *arguments[1:]])))  # type: ignore[misc]
        if status == 0:
            return step
        assert status == -signal.SIGKILL
        check_names(out, whole)
        assert status_of(fork(lambda: main([arguments[0], str(out), *arguments[1:]]))) == 0
        assert tree(out) == whole, step
        shutil.rmtree(out)
    raise AssertionError


def _die_at(step: int, arguments: list[str]) -> int:
    left = [step]

    def before(call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*given: Any, **named: Any) -> Any:
            if not left[0]:
                os.killpg(0, signal.SIGKILL)
            left[0] -= 1
            return call(*given, **named)

        return counted

    for name in STEPS:
        setattr(os, name, before(getattr(os, name)))
    return main(arguments)


def check_names(out: Path, whole: dict[str, bytes]) -> None:
    """Whatever has the name of a finished file is one."""
    manifest = (out / "manifest.json").exists()
    found = tree(out) if out.exists() else {}
    for name, data in found.items():
        if name.endswith((".tar", ".idx", "index.parquet", "manifest.json")) and not name.startswith(".work"):
            assert data == whole[name], name
    if manifest:
        assert set(whole) <= set(found)


def _has_group(process: int) -> bool:
    try:
        return os.getpgid(process) == process
    except ProcessLookupError:
        return False


if __name__ == "__main__":
    what, target, *given = sys.argv[1:]
    convert(jpeg(photo(20, 20)), 16, 90)  # compiles the resizing, which each fork would otherwise do
    if what == "random":
        print(kill_at_random(given, Path(target), kills=20))
    else:
        print(kill_at_every_step(given, Path(target)))
