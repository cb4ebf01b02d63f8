"""Versions of Python, of this program, and of the libraries on which its bytes, figures and results depend."""

import importlib.metadata
import platform

PACKAGES = (
    "shardfeed",
    "torch",
    "torchvision",
    "nvidia-dali-cuda130",
    "nvidia-dali-cuda120",
    "datasets",
    "pyarrow",
    "pillow",
    "simplejpeg",
    "numpy",
    "numba",
)


def version(package: str) -> str | None:
    """The installed version of a package, without "+cu130" and the like; None where it is not installed."""
    try:
        return importlib.metadata.version(package).partition("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return None


def versions() -> dict[str, str]:
    """The version of Python and of each of PACKAGES that is installed."""
    found = {package: version(package) for package in PACKAGES}
    return {"python": platform.python_version(), **{name: number for name, number in found.items() if number}}
