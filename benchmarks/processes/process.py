"""A peer in a process of its own, maybe in another environment, seen from the measuring process."""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.measure.harness import Clock, Interval, Schedule
from benchmarks.measure.machine import WAIT_POLICY
from benchmarks.measure.result import Setting
from benchmarks.processes.task import PeerTask
from shards.common.errors import ShardfeedError, UsageError

ROOT = Path(__file__).resolve().parents[2]
# Seconds a peer may take to start, which includes writing the data set in its own format; and seconds that a turn may
# take beside its interval, which includes starting its threads or processes.
START, TURN = 1800.0, 120.0
TRIAL = Schedule(seconds=0.1)  # of the turn that shows whether a peer works


class Hangs(ShardfeedError):
    """A peer gave no answer in time, and was killed."""


class Ended(ShardfeedError):
    """A peer's process ended by itself, as by a fault in a library."""


class PeerProcess:
    """A peer in its own process, which lives as long as this object and is idle between its turns.

    Waits until the peer is ready and has given batches. Raises ShardfeedError, with the peer's own words, if it cannot.
    """

    def __init__(self, name: str, python: Path | None, module: str, task: PeerTask) -> None:
        self.name = name
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed with the process
        self._process = subprocess.Popen(
            [python or sys.executable, "-m", "benchmarks.processes.serve", module, json.dumps(asdict(task))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            # Idle threads of torch then sleep, and leave the cores to those that decode.
            env={**os.environ, WAIT_POLICY: "PASSIVE", "PYTHONPATH": str(ROOT)},
            # Its worker processes are killed with it.
            start_new_session=True,
        )
        try:
            self.settings: Mapping[str, Setting] = {"threads": task.threads, **self._answer(START)["settings"]}
            self.turn(TRIAL)
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def turn(self, schedule: Schedule, clock: Clock | None = None) -> Interval:
        """One turn, on the clock of that process."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"measure {schedule.seconds} {schedule.warm_up}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise ShardfeedError(f"{self.name} has ended: {self._last_words()}") from None
        return Interval(**self._answer(schedule.seconds + TURN))

    def close(self) -> None:
        """Kills the process and all that it started. Between turns it holds nothing that has to be put in order."""
        if self._log.closed:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()
        self._log.close()

    def __enter__(self) -> "PeerProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _answer(self, seconds: float) -> dict[str, Any]:
        stdout = self._process.stdout
        assert stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            if not selector.select(seconds):
                self.close()  # or it would take cores from the others until the end
                raise Hangs(f"{self.name} gave no answer for {seconds:g} s")
        line = stdout.readline()
        if not line:
            raise Ended(f"{self.name} ended: {self._last_words()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            kind = UsageError if answer["usage"] else ShardfeedError
            raise kind(f"{self.name}: {answer['error']}")
        return answer

    def _last_words(self) -> str:
        self._process.wait(10)
        self._log.seek(0)
        lines = [line.strip() for line in self._log if line.strip()]
        return lines[-1] if lines else f"exit status {self._process.returncode}"
