"""torchrun's last lines hold the message of the rank that failed."""

import json
from pathlib import Path

import pytest
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from shards.common.errors import UsageError
from train.ranks.error_file import write_error_file


def test_torchrun_shows_the_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "error.json"
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(file))
    write_error_file("python -m train", UsageError("nowhere is not a directory"))
    failure = ProcessFailure(local_rank=0, pid=997, exitcode=2, error_file=str(file))
    shown = str(ChildFailedError("train", {0: failure}))
    assert shown.splitlines()[-2] == "  traceback : python -m train: nowhere is not a directory"
    assert int(json.loads(file.read_text())["message"]["extraInfo"]["timestamp"]) > 0


def test_without_torchrun_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_ERROR_FILE", raising=False)
    monkeypatch.chdir(tmp_path)
    write_error_file("python -m train", UsageError("nowhere is not a directory"))
    assert not list(tmp_path.iterdir())
