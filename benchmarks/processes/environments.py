"""Virtual environments for peers whose libraries clash with each other's.

Each lies in `.venv-peers/NAME` at the top of the repository (git ignores it), over this environment: what a peer does
not bring itself, torch above all, is the very copy that every other loader is measured with.
"""

import subprocess
import sysconfig
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes.process import ROOT

HOME = ROOT / ".venv-peers"


@dataclass(frozen=True)
class Environment:
    """What pip installs, and the statement that shows that it works.

    check: imports something that only the real package has: Python imports an empty folder of that name as well.
    dependencies: whether pip brings what the packages ask for; without it, only what is listed.
    debian: Debian packages that building or importing needs.
    """

    check: str
    packages: Sequence[str]
    dependencies: bool = True
    debian: Sequence[str] = ()


ENVIRONMENTS = {
    # FFCV is compiled, and its loader loads the compiled library. Its requirements name distributions that do the same
    # under other names, and cupy for GPUs.
    "ffcv": Environment(
        "from ffcv.loader import Loader",
        ("setuptools", "ffcv", "opencv-python-headless", "fastargs", "terminaltables", "assertpy"),
        dependencies=False,
        debian=("libopencv-dev", "libturbojpeg0-dev", "pkg-config"),
    ),
    # The call loads FFmpeg's libraries.
    "spdl": Environment(
        "from spdl.io.utils import set_ffmpeg_log_level; set_ffmpeg_log_level(16)", ("spdl",), debian=("libavdevice59",)
    ),
    "torchcodec": Environment("from torchcodec.decoders import decode_jpeg", ("torchcodec",)),
    "litdata": Environment("from litdata import StreamingDataset", ("litdata",)),
    "streaming": Environment("from streaming import StreamingDataset", ("mosaicml-streaming",)),
    "tensorflow": Environment("from tensorflow.io import TFRecordWriter", ("tensorflow-cpu",)),
}


def python(name: str) -> Path:
    """The interpreter of an environment, whether it exists or not."""
    return HOME / name / "bin" / "python"


def missing(name: str) -> str | None:
    """Why an environment cannot be used, in one line; None if it can."""
    if not python(name).exists():
        return f"not installed (python -m benchmarks peers-install {name})"
    # -I: neither the current directory nor PYTHONPATH may lend a folder of the package's name.
    problem = _failure([python(name), "-I", "-c", ENVIRONMENTS[name].check])
    return problem and f"{problem}{_needs(name)}"


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
    problem = _failure([*words, *environment.packages])
    return f"{problem}{_needs(name)}" if problem else missing(name)


def _needs(name: str) -> str:
    """The Debian packages of an environment, as the end of a message."""
    packages = " ".join(ENVIRONMENTS[name].debian)
    return f" (it needs these Debian packages: {packages})" if packages else ""


def _failure(words: Sequence[str | Path]) -> str | None:
    """Runs a command; None if it succeeds, otherwise the last telling line of its stderr, or its status."""
    done = subprocess.run(words, cwd=HOME, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip() and not line.startswith("[notice]")]
    telling = [line for line in lines if "rror" in line] or lines
    return telling[-1] if telling else f"exit status {done.returncode}"
