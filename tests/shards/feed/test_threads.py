"""Reading threads whose reads hang: nobody waits for them for long, neither `close` nor the end of the process."""

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from shards.feed.threads import GRACE, DaemonThreads
from tests import ROOT
from tests.conftest import jpeg, photo, write_split


def test_results_and_errors_come_through_futures_in_any_number() -> None:
    threads = DaemonThreads(3, "test")
    assert [future.result() for future in [threads.submit(pow, 2, i) for i in range(20)]] == [2**i for i in range(20)]
    with pytest.raises(ZeroDivisionError):
        threads.submit(divmod, 1, 0).result()
    threads.close()
    assert not [each for each in threading.enumerate() if each.name.startswith("test_")]


def test_closing_drops_what_has_not_begun_and_gives_up_what_hangs() -> None:
    threads, hangs, began = DaemonThreads(2, "test"), threading.Event(), time.monotonic()
    calls = [threads.submit(hangs.wait, 60) for _ in range(5)]
    while threads._work.qsize() > 3:
        time.sleep(0.01)
    threads.close()
    assert time.monotonic() - began < GRACE + 2
    hangs.set()
    assert not calls[4].done()


# A loop of a user's own, without `with`: the loader is closed only when Python ends.
LOOP = """
import sys, time
from shards import Loader, open_dataset
from shards.feed.read import BytesDestination


def hang(*_):
    print("waits", flush=True)
    time.sleep(60)


BytesDestination.read = hang
next(iter(Loader(open_dataset(sys.argv[1])["train"], batch_size=4, train=True, size=8, threads=1)))
"""


@pytest.mark.slow
def test_ctrl_c_ends_a_process_whose_reads_hang(tmp_path: Path) -> None:
    write_split(tmp_path, [jpeg(photo(16, 16, seed)) for seed in range(9)], short_side=16)
    command = [sys.executable, "-c", LOOP, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("waits")  # each thread says so
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(10) == -signal.SIGINT
        finally:
            process.kill()
