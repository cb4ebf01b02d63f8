"""Commands of this project, run by a benchmark as a user would run them."""

import shlex
import subprocess
import sys

from shards.common.errors import ShardfeedError


def run_command(module: str, *words: str) -> list[str]:
    """Runs `python -m module words`, shows it and its output, and returns the lines of its stdout.

    The line of JSON for programs is not shown. Raises ShardfeedError if the command fails.
    """
    print(f"\n$ python -m {shlex.join([module, *words])}", flush=True)
    lines = []
    with subprocess.Popen([sys.executable, "-m", module, *words], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                lines.append(line)
                if not line.startswith("{"):
                    print(line, end="", flush=True)
        except BaseException:
            process.terminate()  # it ends what it has started itself; only Ctrl-C reaches it without this
            raise
    if process.returncode:
        raise ShardfeedError(f"python -m {module} ended with exit status {process.returncode}")
    return lines
