"""Signals end a block at once, or are noted."""

import os
import signal
import threading

import pytest

from shards.common.signals import StoppedBySignal, StopRequest, stopped_by_signals


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
