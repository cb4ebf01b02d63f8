"""python -m benchmarks peers-install [NAMES]: environments for the loaders that we compare with.

Each gets a virtual environment in `.venv-peers/NAME` at the top of the repository (git ignores it), because their
versions clash with each other's. They lie over this environment: what a peer does not bring itself, torch above all,
is the very copy that everybody else is measured with. An environment that works already is left as it is.
FFCV is compiled here: it needs Debian's libopencv-dev, libturbojpeg0-dev and pkg-config (or their like); SPDL loads
FFmpeg's libraries: libavdevice59 and what comes with it.
"""

import subprocess
import sysconfig
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks.processes.remote import ROOT
from shards.common.errors import ShardfeedError, UsageError

HOME = ROOT / ".venv-peers"


@dataclass(frozen=True)
class Environment:
    """What pip is asked to install, and the statement that shows that it works."""

    check: str
    packages: Sequence[str]
    dependencies: bool = True
    """Whether pip brings what the packages ask for; without it, only what is listed."""


ENVIRONMENTS = {
    # Its list of requirements names distributions that do the same under other names, and cupy for GPUs.
    "ffcv": Environment(
        "import ffcv", ("setuptools", "ffcv", "opencv-python-headless", "fastargs", "terminaltables", "assertpy"), False
    ),
    "spdl": Environment("import spdl.io.utils; spdl.io.utils.set_ffmpeg_log_level(16)", ("spdl",)),
    "litdata": Environment("import litdata", ("litdata",)),
    "streaming": Environment("import streaming", ("mosaicml-streaming",)),
    "tensorflow": Environment("import tensorflow", ("tensorflow-cpu",)),
}


@dataclass(frozen=True)
class Options:
    """Makes the environments that `python -m benchmarks loaders` runs other systems in."""

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """Which: ffcv, spdl, litdata, streaming, tensorflow; all of them if none is named."""


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
    if failed:
        raise ShardfeedError(f"not installed: {', '.join(failed)}; measurements leave them out and say so")


def python(name: str) -> Path:
    """The interpreter of an environment, there or not."""
    return HOME / name / "bin" / "python"


def missing(name: str) -> str | None:
    """Why an environment cannot be used, in one line; None if it can."""
    if not python(name).exists():
        return f"not installed (python -m benchmarks peers-install {name})"
    return _failure([python(name), "-c", ENVIRONMENTS[name].check])


def install(name: str) -> str | None:
    """Makes the environment; returns what went wrong, in one line."""
    environment, directory = ENVIRONMENTS[name], HOME / name
    venv.create(directory, with_pip=True)
    (HOME / ".gitignore").write_text("*\n")
    below = directory / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages" / "zz-below.pth"
    # `addsitedir` and not the bare path: an editable install is a .pth file too.
    below.write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    words: list[str | Path] = [python(name), "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
    words += [] if environment.dependencies else ["--no-deps", "--no-build-isolation"]
    return _failure([*words, *environment.packages]) or missing(name)


def _failure(words: Sequence[str | Path]) -> str | None:
    """Runs a command; None if it succeeds, otherwise the last line that it wrote on stderr, or its status."""
    done = subprocess.run(words, cwd=HOME, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip() and not line.startswith("[notice]")]
    telling = [line for line in lines if "rror" in line] or lines
    return telling[-1] if telling else f"exit status {done.returncode}"
