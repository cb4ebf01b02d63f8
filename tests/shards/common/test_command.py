"""The command `shardfeed`: the same as `python -m`, also beside files of the user's own that have our names."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from shards.common.cli import started
from shards.common.command import PROGRAMS, main
from tests import ROOT
from tests.conftest import jpeg, photo, write_split

# The file that pip installs as bin/shardfeed.
SCRIPT = f"#!{sys.executable}\nimport sys\nfrom shards.common.command import main\nsys.exit(main())\n"


@pytest.fixture
def beside_others(tmp_path: Path) -> Path:
    """A directory that holds modules and packages of the user's own with the names of ours, which fail if imported."""
    for name in PROGRAMS:
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a file of the user ran')\n")
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('a package of the user ran')\n")
    return tmp_path


@pytest.fixture
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bin") / "shardfeed"
    path.write_text(SCRIPT)
    path.chmod(0o755)
    return path


def run(words: list[str | Path], directory: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(words, cwd=directory, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def restored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever `main` changes in this process is put back after the test."""
    monkeypatch.setattr(started, "started_as", started.started_as)
    monkeypatch.setattr(sys, "argv", ["shardfeed"])
    monkeypatch.setenv("PYTHONSAFEPATH", "")


@pytest.mark.parametrize("words", [[], ["--help"]])
def test_it_lists_the_five_programs(
    words: list[str], restored: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["shardfeed", *words])
    assert main() == (0 if words else 2)
    out, err = capsys.readouterr()
    listed = [line.split()[0] for line in out.splitlines() if line.startswith("  ")]
    assert listed == ["preprocess", "shards", "train", "model", "benchmarks"]
    assert err == ("" if words else f"shardfeed: no command given: choose one of {', '.join(PROGRAMS)}\n")


def test_a_wrong_word_is_one_line(
    restored: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["shardfeed", "trian", "--data", "x"])
    assert main() == 2
    assert capsys.readouterr() == ("", f"shardfeed: unknown command 'trian': choose one of {', '.join(PROGRAMS)}\n")


@pytest.mark.parametrize("name", PROGRAMS)
def test_each_program_is_ours_and_calls_itself_shardfeed(name: str, beside_others: Path, script: Path) -> None:
    done = run([script, name, "--help"], beside_others)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: shardfeed {name} ")


def test_worker_processes_are_ours_too(beside_others: Path, script: Path) -> None:
    words = ["preprocess", "synthetic:train=4,classes=2", "OUT", "--short-side", "16", "--workers", "2", "--force"]
    done = run([script, *words], beside_others)
    assert (done.returncode, done.stderr) == (0, "")
    assert (beside_others / "OUT" / "manifest.json").is_file()


def test_a_program_s_own_commands_are_ours_too(
    beside_others: Path, restored: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = []

    def start_another(*_: object, **__: object) -> None:  # as `benchmarks` does
        done.append(run([sys.executable, "-m", "shards", "--help"], beside_others))

    monkeypatch.setattr(runpy, "run_module", start_another)
    monkeypatch.setattr(sys, "argv", ["shardfeed", "benchmarks"])
    assert main() == 0
    assert done[0].stdout.startswith("usage: python -m shards COMMAND")


def test_exit_statuses_and_debug_are_those_of_python_m(tmp_path: Path, script: Path) -> None:
    write_split(tmp_path / "data", [jpeg(photo(20, 20))], short_side=20)
    next((tmp_path / "data").rglob("*.tar")).write_bytes(b"")
    damaged, absent = ["shards", "verify", "data"], ["shards", "info", "nowhere", "--debug"]
    for words, status in ((damaged, 1), (absent, 2), (["train", "--no-such-option"], 2)):
        ours, pythons = run([script, *words], tmp_path), run([sys.executable, "-m", *words], tmp_path)
        assert (ours.returncode, pythons.returncode) == (status, status)
        assert ours.stdout == pythons.stdout
        last, expected = ours.stderr.splitlines()[-1], pythons.stderr.splitlines()[-1]
        assert last.replace("shardfeed", "python -m") == expected
        assert ("Traceback" in ours.stderr) == ("--debug" in words)


@pytest.mark.slow
def test_ranks_of_torchrun_are_ours_too(beside_others: Path, script: Path) -> None:
    torchrun = [sys.executable, "-P", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = run([*torchrun, "--no-python", script, "train", "--help"], beside_others)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("usage: shardfeed train ") == 2
