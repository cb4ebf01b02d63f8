"""python -m benchmarks peers-install [NAMES]: environments for the loaders that we compare with.

Each goes to `.venv-peers/NAME` at the top of the repository (benchmarks/processes/environments.py). An environment
that works is left as it is. Where installing fails, the message names the Debian packages that it needs.
"""

from dataclasses import dataclass
from typing import Annotated

import tyro

from benchmarks.processes.environments import ENVIRONMENTS, install, missing, python
from shards.common.cli import show_result
from shards.common.errors import ShardfeedError, UsageError


@dataclass(frozen=True)
class Options:
    """Makes the environments that `python -m benchmarks loaders` runs other systems in."""

    names: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NAME...")] = ()
    """Which: ffcv, spdl, torchcodec, litdata, streaming, tensorflow; all of them if none is named."""


def run(options: Options) -> None:
    """Installs, and says of each whether it works. Raises ShardfeedError if one does not, after trying all."""
    unknown = set(options.names) - ENVIRONMENTS.keys()
    if unknown:
        raise UsageError(f"no environment {', '.join(sorted(unknown))}: choose from {', '.join(ENVIRONMENTS)}")
    failed = []
    for name in options.names or tuple(ENVIRONMENTS):
        problem = None if missing(name) is None else install(name)
        print(f"{name}: {problem or f'works ({python(name)})'}", flush=True)
        failed += [name] if problem else []
    show_result({"failed": failed})
    if failed:
        raise ShardfeedError(f"not installed: {', '.join(failed)}; measurements leave them out and say so")
