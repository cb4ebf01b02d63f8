"""A web server on this machine, in a process of its own, for rows that read a data set behind a URL."""

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from shards.common.errors import ShardfeedError


@contextlib.contextmanager
def served(directory: Path) -> Iterator[str]:
    """Python's own web server over a directory; gives its URL. Raises ShardfeedError where it does not start."""
    words = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(directory)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            port = re.search(r"port (\d+)", process.stdout.readline())
            if port is None:
                raise ShardfeedError("the web server on this machine did not start")
            yield f"http://127.0.0.1:{port[1]}"
        finally:
            process.kill()
