"""Environments of peers: a check that an empty folder cannot pass, and the Debian packages that are needed."""

import sys
from pathlib import Path

import pytest

from benchmarks.commands import peers_install
from benchmarks.measure.settings import BatchSpec
from benchmarks.peers.roster import Entry
from benchmarks.processes import environments
from benchmarks.processes.environments import ENVIRONMENTS, missing
from shards.common.errors import ShardfeedError, UsageError


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(environments, "HOME", tmp_path)
    return tmp_path


def make_empty(home: Path, name: str) -> None:
    """An environment in which nothing is installed; Python can import the folder itself as a package."""
    (home / name / "bin").mkdir(parents=True)
    (home / name / "bin" / "python").symlink_to(sys.executable)


def test_an_environment_that_is_not_there_is_named(home: Path) -> None:
    assert (
        Entry("FFCV", "ffcv", "ffcv").absence("jpeg", BatchSpec())
        == "not installed (python -m benchmarks peers-install ffcv)"
    )


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_an_empty_folder_of_the_package_s_name_does_not_work(
    name: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_empty(home, name)
    for package in ("ffcv", "spdl", "litdata", "streaming", "tensorflow"):
        (home / package).mkdir(exist_ok=True)
    monkeypatch.setenv("PYTHONPATH", str(home))
    problem = missing(name)
    assert problem is not None
    assert "Error" in problem


def test_debian_packages_are_named(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_empty(home, "ffcv")
    monkeypatch.setattr("benchmarks.processes.environments.venv.create", lambda *_, **__: None)
    (home / "ffcv" / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages").mkdir(
        parents=True
    )
    (home / "ffcv" / "bin" / "python").unlink()
    (home / "ffcv" / "bin" / "python").symlink_to("/bin/false")  # pip fails
    with pytest.raises(ShardfeedError, match="not installed: ffcv"):
        peers_install.run(peers_install.Options(("ffcv",)))
    assert "libopencv-dev libturbojpeg0-dev pkg-config)" in capsys.readouterr().out


def test_only_known_environments_are_installed() -> None:
    with pytest.raises(UsageError, match="ffcv"):
        peers_install.run(peers_install.Options(("nonsense",)))
