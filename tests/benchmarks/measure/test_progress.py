"""What people see while a benchmark measures: a bar on a terminal, lines in a log."""

import os
import pty
import subprocess
import sys
import termios

from tests import ROOT

CODE = (
    "from benchmarks.measure.progress import announce, watched\n"
    "announce('two things', 120)\n"
    "assert list(watched(['first', 'second'], str.upper, 'turn')) == ['first', 'second']\n"
)


def test_a_terminal_shows_what_is_measured_how_long_and_the_current_step() -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40, 100))
    subprocess.run([sys.executable, "-c", CODE], cwd=ROOT, stderr=theirs, check=True)
    os.close(theirs)
    shown = os.read(ours, 10_000).decode()
    os.close(ours)
    assert shown.startswith("measuring two things (about 2 minutes)")
    assert "FIRST" in shown
    assert "SECOND" in shown


def test_a_log_has_a_line_for_each_step() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = ["measuring two things (about 2 minutes)", "turn 1 of 2: FIRST", "turn 2 of 2: SECOND"]
    assert (done.stdout, done.stderr.splitlines()) == ("", lines)
