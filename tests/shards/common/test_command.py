"""The command `shardfeed`: the same as `python -m`, also beside files of the user's own that have our names."""

import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shards.common import signals, terminal
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
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever `main` changes in this process is put back after the test."""
    before = {number: signal.getsignal(number) for number in signals.ENDING}
    monkeypatch.setattr(signals, "_prog", "")
    monkeypatch.setattr(terminal, "started_as", terminal.started_as)
    monkeypatch.setattr(sys, "argv", ["shardfeed"])
    monkeypatch.setenv("PYTHONSAFEPATH", "")
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


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
    words = [
        "preprocess",
        "synthetic:train=4,validation=2,classes=2",
        "OUT",
        "--short-side",
        "16",
        "--workers",
        "2",
        "--force",
    ]
    done = run([script, *words], beside_others)
    assert (done.returncode, [line for line in done.stderr.splitlines() if not line.endswith(" ...")]) == (0, [])
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


@pytest.mark.parametrize("name", ["train", "preprocess", "model", "benchmarks"])
def test_python_m_names_a_package_that_hides_ours(name: str, tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "__init__.py").write_text("")
    done = run([sys.executable, "-m", name, "--help"], tmp_path)
    hides = f"{tmp_path / 'shards' / '__init__.py'} hides this project's shards: start `shardfeed {name}` instead\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", hides)


def test_python_m_names_a_module_that_hides_one_which_is_loaded_later(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("")
    done = run([sys.executable, "-m", "benchmarks", "demo", "--help"], tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(
        f"python -m benchmarks demo: {tmp_path / 'train.py'} hides this project's package train"
    )
    assert done.stderr.count("\n") == 1


def test_a_folder_of_data_that_is_called_shards_hides_nothing(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    assert run([sys.executable, "-m", "train", "--help"], tmp_path).returncode == 0


def test_messages_name_commands_as_this_one_was_started(tmp_path: Path, script: Path) -> None:
    ours, pythons = (
        run([*start, "shards", "info", "nowhere"], tmp_path) for start in ([script], [sys.executable, "-m"])
    )
    assert "that `shardfeed preprocess` wrote" in ours.stderr
    assert "that `python -m preprocess` wrote" in pythons.stderr


def test_modules_without_a_command_keep_their_name(restored: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "started_as", "shardfeed")
    text = "python -m train.curves, python -m train. python -m trains, python -m benchmarks loaders"
    named = "python -m train.curves, shardfeed train. python -m trains, shardfeed benchmarks loaders"
    assert terminal.as_started(text) == named
