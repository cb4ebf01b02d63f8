"""Commands of this project, run by a benchmark as a user would run them."""

import shlex
import subprocess
import sys

from preprocess.job.next_steps import WORK_NOW
from shards.common.errors import ShardfeedError


def run_command(module: str, *words: str, kept: bool = True) -> list[str]:
    """Runs `python -m module words`, shows it and its output, and returns the lines of its stdout.

    The line of JSON for programs is not shown. kept: whether what it makes stays; otherwise the commands that work with
    it are not shown either. Raises ShardfeedError if the command fails.
    """
    print(f"\n$ python -m {shlex.join([module, *words])}", flush=True)
    lines, shown = [], True
    with subprocess.Popen([sys.executable, "-m", module, *words], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                lines.append(line)
                shown = shown and (kept or line.strip() != WORK_NOW)
                if shown and not line.startswith("{"):
                    print(line, end="", flush=True)
        except BaseException:
            process.terminate()  # it ends what it has started itself; only Ctrl-C reaches it without this
            raise
    if process.returncode:
        raise ShardfeedError(f"python -m {module} ended with exit status {process.returncode}")
    return lines
