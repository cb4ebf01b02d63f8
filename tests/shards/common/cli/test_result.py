"""The result of a command as JSON: with --json, or where stdout is no terminal."""

import json
import os
import pty
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from shards.common.cli import guarded, show_result
from shards.dataset import Split
from tests import ROOT


@dataclass(frozen=True)
class Found:
    place: Path
    count: int


def test_dataclasses_and_paths_become_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded("prog", lambda _: show_result({"found": [Found(Path("a"), 1)]}), []) == 0
    assert json.loads(capsys.readouterr().out) == {"found": [{"place": "a", "count": 1}]}


def printed(words: list[str], terminal: bool) -> list[str]:
    """The lines that `python -m shards` prints to a pipe, or to a terminal."""
    command, environment = [sys.executable, "-m", "shards", *words], {**os.environ, "PYTHONPATH": str(ROOT)}
    if not terminal:
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, env=environment, stdout=theirs) as process:
        os.close(theirs)
        text = b""
        while True:
            try:
                piece = os.read(ours, 4096)
            except OSError:  # how a terminal ends
                break
            if not piece:
                break
            text += piece
    os.close(ours)
    assert process.returncode == 0
    return text.decode().splitlines()


@pytest.mark.parametrize(
    ("flags", "terminal", "is_json"), [([], False, True), ([], True, False), (["--json"], True, True)]
)
def test_a_terminal_gets_json_only_if_it_is_asked_for(
    flags: list[str], terminal: bool, is_json: bool, small_split: Split
) -> None:
    last = printed(["info", str(small_split.root), *flags], terminal)[-1]
    assert last.startswith("{") == is_json
    if is_json:
        assert json.loads(last)["splits"]["train"]["samples"] == len(small_split)
