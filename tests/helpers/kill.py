"""Kills programs with SIGKILL and starts them again: in the end OUT must be as if nothing had happened.

python -m tests.helpers.kill conversion|training random|steps OUT WORDS...

Importing the libraries takes seconds, so it is done once: every start of a program is a fork, in a process group of
its own. `start`, `wait_until` and `kill_when` are for tests that kill a program in its own interpreter.
"""

import itertools
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import forks

# Calls of os that create, rename or remove names.
STEPS = ("replace", "rename", "link", "unlink", "rmdir")
KILLS = {"conversion": 20, "training": 10}


@dataclass(frozen=True)
class Program:
    """A program that is killed. OUT is compared with WHOLE, which an undisturbed run made.

    `run`: starts it with OUT and its other words, and returns its exit status; `progress`: how far OUT is, from 0, or
    None where it is complete; `length`: how far WHOLE came; `check`: asserts that what a kill left is sound; `compare`:
    that a complete OUT is WHOLE. `earliest`: no kill comes before this part of the time to the first progress.
    """

    run: Callable[[Path, list[str]], int]
    progress: Callable[[Path], int | None]
    length: Callable[[Path], int]
    check: Callable[[Path, Path], None]
    compare: Callable[[Path, Path], None]
    earliest: float


@contextmanager
def conversion() -> Iterator[Program]:
    """`python -m preprocess SOURCE OUT`; the first word is SOURCE."""
    import preprocess.run  # noqa: F401  # imported before forking
    from preprocess.__main__ import main
    from preprocess.images.convert import convert
    from tests.conftest import jpeg, photo
    from tests.helpers.jobs import tree

    def progress(out: Path) -> int | None:
        complete = (out / "manifest.json").exists() and not (out / ".work").exists()
        return None if complete else len(list(out.glob(".work/*-*.json")))

    def check(out: Path, whole: Path) -> None:
        """Every file with the name of a finished file is finished."""
        has_manifest = (out / "manifest.json").exists()
        found, expected = tree(out) if out.exists() else {}, tree(whole)
        for name, data in found.items():
            if name.endswith((".tar", ".idx", "index.parquet", "manifest.json")) and not name.startswith(".work"):
                assert data == expected[name], name
        assert not has_manifest or set(expected) <= set(found)

    def compare(out: Path, whole: Path) -> None:
        assert tree(out) == tree(whole)

    convert(jpeg(photo(20, 20)), 16, 90)  # compiles the resizing, which each fork would do otherwise
    run = lambda out, words: main([words[0], str(out), *words[1:]])  # noqa: E731
    yield Program(run, progress, lambda whole: len(list(whole.rglob("*.tar"))), check, compare, earliest=0.0)


@contextmanager
def training() -> Iterator[Program]:
    """`python -m train --out OUT`, saved after every step."""
    import torch

    import shards.loader  # noqa: F401  # imported before forking
    from shards.common.errors import UsageError
    from tests.helpers.resume import assert_same, tiny_models
    from train.__main__ import main, parse_config
    from train.checkpoints.earlier import CHECKPOINTS, LAST, NEW
    from train.checkpoints.resume import read_checkpoint
    from train.report.metrics import TOTAL_TIME

    def step(out: Path) -> int:
        for name in (LAST, NEW):  # between two renames there is only NEW
            with suppress(FileNotFoundError, UsageError):
                return int(read_checkpoint(out / CHECKPOINTS / name)["step"])
        return 0

    def progress(out: Path) -> int | None:
        return None if (out / TOTAL_TIME).exists() else step(out)

    torch.set_num_threads(1)
    parse_config(["--data", "DIR"])  # loads what tyro needs, and reads the help of each option
    with tiny_models() as patch:
        patch.setattr("train.checkpoints.saver.AGREE_S", 0.0)
        run = lambda out, words: main([*words, "--out", str(out)])  # noqa: E731
        yield Program(run, progress, step, lambda out, whole: None, assert_same, earliest=0.8)


def kill_at_random(program: Program, out: Path, words: list[str], kills: int) -> list[int]:
    """Starts the program again and again, each time killing its group, `kills` times in all, from its start to its end.

    Every fourth kill comes at a random moment of the start, before any progress. Each of the others has its own part of
    the whole length: the program waits where that part begins until it is watched, and is killed a random moment later.
    A kill after the end of its part does not count, and the next try leaves less time: so the kills spread over the
    whole on a machine of any speed. A complete run is compared, and begun anew. Returns the progress at each kill.
    """
    whole = out.with_name("whole")
    started = time.monotonic()
    process = _fork(lambda: program.run(whole, words))
    wait_until(lambda: program.progress(whole) != 0)
    first = time.monotonic() - started
    assert _status(process) == 0
    length = program.length(whole)
    assert length >= 2 * kills, "the parts would be too short"
    pace = (time.monotonic() - started - first) / length
    moments, progress = random.Random(0), list[int]()
    while len(progress) < kills:
        begin, end = (length * part // kills for part in (len(progress), len(progress) + 1))
        starts, before = len(progress) % 4 == 0, program.progress(out) or 0
        if not starts and before >= end:
            shutil.rmtree(out)
        process, gate = _fork_with_gate(program, out, words, before + 1 if starts else begin)
        with gate:
            if starts:
                select.select([gate], [], [], moments.uniform(program.earliest * first, first))
            elif gate.recv(1):
                gate.send(b"!")
                time.sleep(moments.uniform(0, pace))
            # A process that is killed before it made its group is alone.
            (os.killpg if _has_group(process) else os.kill)(process, signal.SIGKILL)
            killed = _status(process) == -signal.SIGKILL
        program.check(out, whole)
        reached = program.progress(out)
        if reached is None:
            program.compare(out, whole)
            shutil.rmtree(out)
        else:
            assert killed
            if starts or reached < end:
                progress.append(reached)
                continue
        pace /= 2
    assert _status(_fork(lambda: program.run(out, words))) == 0
    program.compare(out, whole)
    return progress


def kill_at_every_step(program: Program, out: Path, words: list[str]) -> int:
    """Kills the program before each single call of STEPS, and resumes it; returns the number of calls."""
    whole = out.with_name("whole")
    assert _status(_fork(lambda: program.run(whole, words))) == 0
    for step in itertools.count():
        status = _status(_fork(lambda step=step: _die_at(step, lambda: program.run(out, words))))  # type: ignore[misc]
        if status == 0:
            return step
        assert status == -signal.SIGKILL
        program.check(out, whole)
        assert _status(_fork(lambda: program.run(out, words))) == 0
        program.compare(out, whole)
        shutil.rmtree(out)
    raise AssertionError


def kill_in_a_process_of_its_own(case: str, how: str, out: Path, *words: object) -> list[int]:
    """What `main` prints: the progress at each kill, or the number of steps."""
    process = start("tests.helpers.kill", case, how, out, *words)
    printed, said = process.communicate()
    assert process.returncode == 0, said
    return [int(word) for word in printed.splitlines()[-1].split()]


def start(*words: object, **variables: str) -> forks.Popen:
    """Starts `python -m WORDS...` in a session of its own, with further environment variables."""
    return forks.Popen(
        [sys.executable, "-m", *words],
        env={**os.environ, **variables},
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def wait_until(condition: Callable[[], bool], seconds: float = 100) -> None:
    """Returns once the condition holds; fails after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def kill_when(
    process: "subprocess.Popen[Any] | forks.Popen",
    condition: Callable[[], bool],
    number: int = signal.SIGKILL,
    group: bool = False,
) -> None:
    """Sends a signal to a process or its group once the condition holds, or the process has ended."""
    wait_until(lambda: condition() or process.poll() is not None)
    if process.poll() is None:
        (os.killpg if group else os.kill)(process.pid, number)


def kill_tree(process: BaseProcess) -> None:
    """Kills a process and its children at once, whatever their sessions, as a power cut does."""
    if not process.is_alive():
        return
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert process.pid is not None
    for each in [*map(int, children), process.pid]:
        os.kill(each, signal.SIGKILL)
    process.join()


def descendants(process: int) -> dict[int, str]:
    """Every process below one, with its command line."""
    parents, lines = {}, {}
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(directory.name)] = int((directory / "stat").read_text().rpartition(")")[2].split()[1])
            lines[int(directory.name)] = (directory / "cmdline").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
    found = {process}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return {each: lines[each] for each in found - {process} if each in lines}


def group_exists(group: int) -> bool:
    """Whether any process of a group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def _fork(job: Callable[[], int]) -> int:
    """Runs `job` in a forked process, silent and in a group of its own; returns the process id."""
    process = os.fork()
    if process == 0:
        os.setsid()
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        os._exit(job())
    return process


def _fork_with_gate(program: Program, out: Path, words: list[str], aim: int) -> tuple[int, socket.socket]:
    """Starts the program; with its progress at `aim` it sends a byte through the socket, and waits for an answer."""
    ours, theirs = socket.socketpair()

    def run() -> int:
        ours.close()
        replace, closed = os.replace, [True]

        def gated(*given: Any, **named: Any) -> None:
            replace(*given, **named)
            if closed and (program.progress(out) or 0) >= aim:
                closed.clear()
                theirs.send(b"!")
                theirs.recv(1)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "replace", gated)
            return program.run(out, words)

    process = _fork(run)
    theirs.close()
    ours.settimeout(100)
    return process, ours


def _status(process: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def _has_group(process: int) -> bool:
    try:
        return os.getpgid(process) == process
    except ProcessLookupError:
        return False


def _die_at(step: int, run: Callable[[], int]) -> int:
    """Runs the program, and kills its group in place of call number `step` of STEPS."""
    left = [step]

    def before(call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*given: Any, **named: Any) -> Any:
            if not left[0]:
                os.killpg(0, signal.SIGKILL)
            left[0] -= 1
            return call(*given, **named)

        return counted

    with pytest.MonkeyPatch.context() as patch:
        for name in STEPS:
            patch.setattr(os, name, before(getattr(os, name)))
        return run()


def main(case: str, how: str, out: str, *words: str) -> None:
    with {"conversion": conversion, "training": training}[case]() as program:
        if how == "random":
            print(*kill_at_random(program, Path(out), list(words), KILLS[case]))
        else:
            print(kill_at_every_step(program, Path(out), list(words)))


if __name__ == "__main__":
    main(*sys.argv[1:])
