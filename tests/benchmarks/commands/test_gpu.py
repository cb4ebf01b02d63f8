"""`python -m benchmarks gpu`: what it would run, that a failure stops nothing, and that the time is kept."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from benchmarks.__main__ import COMMANDS, main
from benchmarks.commands import gpu
from benchmarks.commands.gpu import Options, Step, perform, steps
from benchmarks.commands.loaders import _entries
from shards.common.cli import parse
from shards.dataset import Split
from tests import ROOT


def _python(name: str, code: str, directory: Path, share: float = 1.0) -> Step:
    (directory / f"{name}.py").write_text(code)
    return Step(name, (name,), share)


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory whose files `python -m` finds."""
    directory = tmp_path / "modules"
    directory.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(directory))
    return directory


@pytest.mark.parametrize("little", [False, True])
@pytest.mark.parametrize("source", [None, "S"])
def test_every_step_is_a_command_that_its_program_takes(little: bool, source: str | None, tmp_path: Path) -> None:
    plan = steps(Path("D"), source, tmp_path, little)
    assert plan[0].words[0] == "pytest"
    assert sum(step.share for step in plan) <= 1.0
    for name, *words in [step.words[1:] for step in plan if step.words[0] == "benchmarks"]:
        parse(COMMANDS[name].config, words, name)


@pytest.mark.parametrize(
    ("source", "commands"), [(None, ["preprocess.synthetic", "preprocess"]), ("S", ["preprocess"])]
)
def test_shards_are_made_once(
    source: str | None, commands: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[tuple[str, ...]] = []
    monkeypatch.setattr(gpu, "run_command", lambda *words: ran.append(words))
    shards, taken_from = gpu.make_data(Options(source=source, out=tmp_path))
    assert [words[0] for words in ran] == commands
    assert ran[-1][1:3] == (taken_from, str(shards))
    shards.mkdir(parents=True)
    (shards / "manifest.json").touch()
    assert gpu.make_data(Options(source=source, out=tmp_path)) == (shards, taken_from)
    assert len(ran) == len(commands)


def test_the_loaders_are_measured_with_every_way_to_decode_on_a_gpu(tmp_path: Path) -> None:
    words = next(step.words for step in steps(Path("D"), None, tmp_path, little=False) if step.name == "loaders")
    on_gpu = {"gpu", "gpu-region", "gpu-hybrid", "gpu-hardware", "gpu-lent", "dali-gpu"}
    assert on_gpu | {f"gpu-hardware-{load}" for load in (0.5, 0.8, 0.95)} <= set(words)


def test_views_are_measured_on_a_gpu(tmp_path: Path) -> None:
    words = next(step.words for step in steps(Path("D"), None, tmp_path, little=False) if step.name == "views")
    options = parse(COMMANDS["loaders"].config, list(words[2:]), "loaders")
    decode = {entry.options["decode"] for entry in _entries(options).values() if entry.options.get("device") == "gpu"}
    assert decode == {"cpu", "region"}


@pytest.mark.parametrize(("minutes", "rounds"), [(7.0, "1"), (10.0, "2")])
def test_less_time_means_fewer_rounds(
    minutes: float, rounds: str, small_split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, ...]] = []

    def perform(plan: Sequence[Step], *_: object) -> list[str]:
        asked.extend(step.words for step in plan)
        return []

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu, "perform", perform)
    gpu.run(Options(data=small_split.root, minutes=minutes, out=tmp_path))
    measuring = [words for words in asked if "--rounds" in words]
    assert len(measuring) == 5
    assert {words[words.index("--rounds") + 1] for words in measuring} == {rounds}


def test_a_step_that_fails_does_not_keep_the_next_one_from_running(modules: Path, tmp_path: Path) -> None:
    plan = [
        _python("breaks", "raise SystemExit('no decoder\\n')", modules),
        _python("works", f"open({str(tmp_path / 'there')!r}, 'w')", modules),
    ]
    assert perform(plan, tmp_path, 60) == ["breaks"]
    assert (tmp_path / "there").exists()
    assert "no decoder" in (tmp_path / "breaks.log").read_text()


def test_a_step_that_takes_too_long_is_interrupted_and_what_it_started_ends(modules: Path, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    code = (
        "import pathlib, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"pathlib.Path({str(file)!r}).write_text(str(child.pid))\n"
        "try:\n    time.sleep(600)\nexcept KeyboardInterrupt:\n    print('cleaned up')\n"
    )
    assert perform([_python("slow", code, modules)], tmp_path, 1.5) == ["slow"]
    assert "cleaned up" in (tmp_path / "slow.log").read_text()
    child = Path(f"/proc/{file.read_text()}/stat")
    for _ in range(100):
        if not child.exists() or child.read_text().rpartition(")")[2].split()[0] == "Z":
            break
        time.sleep(0.05)
    else:
        pytest.fail("a process is left")


def test_without_a_gpu_it_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["gpu", "--out", str(tmp_path / "results")]) == 2
    assert "sees no GPU" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_failures_are_named_at_the_end(
    modules: Path,
    small_split: Split,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = (_python("breaks", "raise SystemExit(3)", modules), _python("works", "", modules))
    monkeypatch.setattr(gpu, "steps", lambda *_, **__: plan)
    words = ["gpu", "--rehearsal", "--data", str(small_split.root), "--out", str(tmp_path / "results")]
    assert main(words) == 1
    out, err = capsys.readouterr()
    assert json.loads(out.splitlines()[-1])["failed"] == ["breaks"]
    assert "breaks failed" in err
    assert len(list((tmp_path / "results").iterdir())) == 1


@pytest.mark.parametrize("target", ["test-gpu", "bench-gpu"])
def test_a_machine_with_its_own_python_installs_nothing(target: str) -> None:
    words = ["make", "-n", target, "VENV=none", "PYTHON=python3.12", "MINUTES=7", "RESULTS=/tmp/results"]
    # `make test` tells the makes below it about itself.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    said = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    assert "pip" not in said
    assert "venv" not in said
    assert said.rstrip().splitlines()[-1].startswith("python3.12 -m ")
    if target == "bench-gpu":
        assert "--minutes 7 --out /tmp/results" in said


COLLECT = """
import sys

BLOCKED = ("datasets", "hypothesis", "moto", "s3fs", "ray", "matplotlib", "jinja2", "simplejpeg", "xdist")


class Block:
    def find_spec(self, name, *rest):
        if name.partition(".")[0] in BLOCKED:
            raise ImportError(name)


sys.meta_path.insert(0, Block())

import pytest

plugins = ["-p", "no:xdist", "-p", "no:xdist.looponfail", "-p", "no:hypothesispytest"]
sys.exit(pytest.main(["--collect-only", "-q", *plugins, "tests/gpu"]))
"""


def test_the_tests_for_a_gpu_are_collected_without_the_packages_of_others() -> None:
    done = subprocess.run([sys.executable, "-c", COLLECT], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "test_the_gpu_graph_agrees_with_the_cpu_graph" in done.stdout
