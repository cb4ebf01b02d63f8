"""Signals end a block at once, or are noted."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from shards.common import signals
from shards.common.signals import StoppedBySignal, StopRequest, stopped_by_signals
from shards.common.terminal import PROGRAMS
from tests import ROOT


def wait_for(number: signal.Signals, cleaned: list[bool]) -> None:
    """Gets a signal, and another one while it cleans up."""
    with stopped_by_signals():
        try:
            os.kill(os.getpid(), number)
            signal.pause()
        finally:
            os.kill(os.getpid(), number)
            cleaned.append(True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_an_exception_with_the_status_that_shells_give(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    cleaned: list[bool] = []
    with pytest.raises(StoppedBySignal) as caught:
        wait_for(number, cleaned)
    assert caught.value.code == 128 + number
    assert caught.value.name == number.name
    assert cleaned
    assert signal.getsignal(number) is before


def test_ctrl_c_is_acknowledged_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGINT)
    said: list[str] = []

    def interrupted() -> None:
        with stopped_by_signals():
            try:
                signal.raise_signal(signal.SIGINT)
            finally:
                said.append(capfd.readouterr().err)

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert said == ["stopping ...\n"]
    assert signal.getsignal(signal.SIGINT) is before


def test_what_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopped_by_signals():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_a_request_notes_the_signal_and_gives_the_handlers_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopRequest() as request:
        assert request.number == 0
        signal.raise_signal(number)
        assert request.number == number
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_does_not_wait() -> None:
    with StopRequest() as request:
        signal.raise_signal(signal.SIGINT)
        assert request.number == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_other_threads_listen_to_no_signals() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    seen: list[object] = []

    def enter() -> None:
        with StopRequest(), stopped_by_signals():
            seen.extend(signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == before


END = """
import os, signal
from shards.common.signals import end_on_signals
end_on_signals("python -m train")
if {forked} and os.fork():
    os._exit(os.waitstatus_to_exitcode(os.wait()[1]) % 256)
os.kill(os.getpid(), {number})
"""


def end(number: signal.Signals, forked: bool = False, **environment: str) -> tuple[int, str]:
    """The status and stderr of a process that gets the signal while its libraries load."""
    code = END.format(number=int(number), forked=forked)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("number", "said"),
    [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "stopped by SIGTERM"), (signal.SIGHUP, "stopped by SIGHUP")],
)
def test_while_libraries_load_a_signal_is_one_line_and_a_status(number: signal.Signals, said: str) -> None:
    assert end(number) == (128 + number, f"python -m train: {said}\n")


def test_of_several_ranks_the_first_alone_says_that_it_was_interrupted() -> None:
    assert end(signal.SIGINT, RANK="1") == (130, "")
    assert end(signal.SIGTERM, RANK="0") == (-signal.SIGTERM, "")


def test_a_forked_worker_obeys_without_a_word() -> None:
    assert end(signal.SIGTERM, forked=True) == (256 - signal.SIGTERM, "")


def test_ctrl_c_raises_once_the_command_runs_and_ends_it_while_libraries_load(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(signals, "_prog", "python -m train")
    try:
        signal.signal(signal.SIGINT, signals._end)
        signals.interrupts_raise()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        with signals.interrupts_end():
            assert signal.getsignal(signal.SIGINT) is signals._end
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


PROGRAM = """
import runpy, sys
import shards.common.signals as signals
def stop(prog):
    print(prog, sorted({{"numpy", "tyro", "pyarrow", "torch"}} & set(sys.modules)))
    raise SystemExit
signals.end_on_signals = stop
runpy.run_module("{name}", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_hears_signals_before_it_loads_anything(name: str) -> None:
    words = [sys.executable, "-c", PROGRAM.format(name=name)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == f"python -m {name} []\n"
