"""Measuring training as it is run: with PyTorch's threads asleep while they wait, as `python -m train` sets them."""

import os
import sys

POLICY = "OMP_WAIT_POLICY"


def sleep_while_waiting() -> None:
    """Begins this program anew, with the same command line, unless OMP_WAIT_POLICY is set already.

    PyTorch reads that variable when it is loaded, and by then it has been. The process stays the same one, so that
    whoever started it can stop it.
    """
    if POLICY not in os.environ:
        sys.stdout.flush()
        os.execve(sys.executable, sys.orig_argv, {**os.environ, POLICY: "PASSIVE"})
