import os
import signal

import pytest

from preprocess.job.signals import Stopped, stopped_by_signals


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
    with pytest.raises(Stopped) as caught:
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
