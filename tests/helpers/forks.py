"""`python -m MODULE WORDS...` as a fork of a server that has imported the libraries: importing them takes seconds.

A program does the same, but for what it loads. Stands for the module subprocess where only these names of it are used.
"""

import multiprocessing
import os
import runpy
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import reduction
from multiprocessing.context import ForkServerContext, ForkServerProcess
from subprocess import PIPE, STDOUT, CompletedProcess, TimeoutExpired
from typing import IO, Any

import pytest

from tests import ROOT

__all__ = ["PIPE", "STDOUT", "CompletedProcess", "Popen", "TimeoutExpired", "fork_workers", "run", "server"]

# What programs load on their way, some of it in libraries: pyarrow's first array loads pandas, tyro's first command
# line typeguard, the first compiled loop much of numba.
LOADED = ["tests.helpers.ranks", "tests.helpers.kill", "shards.loader", "preprocess.run", "pandas", "typeguard", "s3fs"]
LOADED += ["tyro._cli", "tests.helpers.warm"]


def server() -> ForkServerContext:
    """Starts processes as forks of one server, which lives as long as the tests."""
    multiprocessing.set_forkserver_preload(LOADED)
    return multiprocessing.get_context("forkserver")


class _Worker(ForkServerProcess):
    """A fork of the server with the environment of this process, as one that is spawned has, and not the server's."""

    def start(self) -> None:
        self.environment = dict(os.environ)
        super().start()

    def run(self) -> None:
        os.environ.clear()
        os.environ.update(self.environment)
        super().run()


class _Workers(ForkServerContext):
    Process = _Worker


def fork_workers(patch: pytest.MonkeyPatch) -> None:
    """Processes that would be spawned are forks of the server."""
    server()
    patch.setattr(multiprocessing, "get_context", lambda _: _Workers())


class Popen:
    """What tests use of subprocess.Popen, for `python -m MODULE ...` and `python -c CODE ...` in ROOT, and for text."""

    def __init__(
        self,
        command: Sequence[object],
        *,
        stdin: int | None = None,
        stdout: "int | IO[Any] | None" = None,
        stderr: "int | IO[Any] | None" = None,
        cwd: object = ROOT,
        env: Mapping[str, str] | None = None,
        start_new_session: bool = False,
        text: bool = True,
    ) -> None:
        python, *words = map(str, command)
        assert (python, cwd, text) == (sys.executable, ROOT, True)
        self.args = command
        self.stdin: IO[str] | None = None
        self.stdout: IO[str] | None = None
        self.stderr: IO[str] | None = None
        files, pipes = [0, 1, 2], list[int]()
        if stdin == PIPE:
            files[0], ours = os.pipe()
            self.stdin = os.fdopen(ours, "w")
            pipes.append(files[0])
        for number, name, given in ((1, "stdout", stdout), (2, "stderr", stderr)):
            if given == PIPE:
                ours, files[number] = os.pipe()
                setattr(self, name, os.fdopen(ours))
                pipes.append(files[number])
            elif given is not None:
                files[number] = files[1] if given == STDOUT else given.fileno()  # type: ignore[union-attr]
        place = (dict(os.environ if env is None else env), start_new_session)
        self._process = server().Process(target=_run, args=(words, [_File(each) for each in files], *place))
        self._process.start()
        for each in pipes:
            os.close(each)
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise TimeoutExpired(list(map(str, self.args)), timeout or 0)
        return self._process.exitcode

    def kill(self) -> None:
        self._process.kill()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def __enter__(self) -> "Popen":
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self.stdin, self.stdout, self.stderr):
            if each is not None:
                each.close()
        self.wait()

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        if self.stdin is not None:
            self.stdin.close()
        with ThreadPoolExecutor(2) as pool:
            texts = [pool.submit(_text, each) for each in (self.stdout, self.stderr)]
            self.wait(timeout)
            return texts[0].result(), texts[1].result()


def run(command: Sequence[object], *, timeout: float | None = None) -> "CompletedProcess[str]":
    """The ended process, with all that it printed."""
    process = Popen(command, stdout=PIPE, stderr=PIPE)
    printed, said = process.communicate(timeout)
    return CompletedProcess(list(map(str, command)), process.wait(), printed, said)


def _text(file: "IO[str] | None") -> str:
    if file is None:
        return ""
    with file:
        return file.read()


class _File:
    """An open file that the other process has too."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> tuple[Callable[[Any], int], tuple[Any]]:
        return _received, (reduction.DupFd(self.number),)


def _received(there: Any) -> int:
    return int(there.detach())


def _run(words: list[str], files: list[int], env: dict[str, str], session: bool) -> None:
    if session:
        os.setsid()
    for number, each in enumerate(files):
        os.dup2(each, number)
    sys.stdin, sys.stdout, sys.stderr = (open(number, "r" if number == 0 else "w", 1) for number in range(3))  # noqa: SIM115, PTH123
    os.environ.clear()
    os.environ.update(env)
    option, program, *_ = words
    sys.argv = words[1:] if option == "-m" else ["-c", *words[2:]]
    if option == "-m":
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    else:
        exec(program, {"__name__": "__main__"})
