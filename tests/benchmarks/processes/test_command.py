"""Commands of this project that a benchmark runs: what is shown of their output."""

import sys
from pathlib import Path

import pytest

from benchmarks.processes.command import run_command
from preprocess.job.next_steps import WORK_NOW


@pytest.mark.parametrize("kept", [True, False])
def test_no_command_is_advised_for_what_a_benchmark_removes(
    kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\nprintf '4 images stored\\n{WORK_NOW}\\n  train --data out\\n{{}}\\n'\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    assert len(run_command("preprocess", "source", "out", kept=kept)) == 4
    advised = f"{WORK_NOW}\n  train --data out\n" if kept else ""
    assert capsys.readouterr().out == f"\n$ python -m preprocess source out\n4 images stored\n{advised}"
