"""What a message of `preprocess` says to do is done, and works."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from preprocess.job.make import make_shards
from preprocess.job.task import ShardJob
from tests.helpers.jobs import BROKEN, convert, folder, interrupt_at, line, tree


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return folder(tmp_path / "source", {"train": 12})


@pytest.fixture
def whole(source: Path, tmp_path: Path) -> dict[str, bytes]:
    assert convert(source, tmp_path / "whole") == 0
    return tree(tmp_path / "whole")


def test_a_damaged_plan_says_to_remove_all_of_the_job(
    source: Path, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        interrupt_at(patch, 6)
        convert(source, out)
    (out / ".work" / "plan.json").write_bytes(b"{")
    capsys.readouterr()
    assert convert(source, out) == 1
    assert f"remove {out} and start again, or give another directory" in line(capsys)
    shutil.rmtree(out)
    assert convert(source, out) == 0
    assert tree(out) == whole


def removed_before(shard: int, what: str) -> Callable[..., Any]:
    """`ShardJob.run`, but OUT or a part of it is removed before this shard is made."""
    plain = ShardJob.run

    def run(job: ShardJob, task: tuple[str, int], progress: Any) -> Any:
        if task[1] == shard:
            shutil.rmtree(job.out / what)
        return plain(job, task, progress)

    return run


@pytest.mark.parametrize("what", ["", ".work"])
@pytest.mark.parametrize("stopped", [True, False])
def test_a_job_whose_plan_is_removed_meanwhile_says_to_remove_the_rest(
    source: Path, whole: dict[str, bytes], tmp_path: Path, what: str, stopped: bool,
    monkeypatch: pytest.MonkeyPatch, capsys: Any,
) -> None:  # fmt: skip
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(ShardJob, "run", removed_before(1, what))
        if stopped:
            interrupt_at(patch, 10)
        assert convert(source, out) == 1
    said = capsys.readouterr().err.strip().splitlines()
    assert any("remove what is left" in each for each in said)
    assert not any("the same command goes on" in each for each in said)
    assert convert(source, out) == 2  # without following the advice
    shutil.rmtree(out)
    assert convert(source, out) == 0
    assert tree(out) == whole


def test_a_job_whose_whole_out_is_removed_in_the_end_can_be_started_again(
    source: Path, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    out = tmp_path / "out"

    def removed(*given: Any) -> Any:
        results = make_shards(*given)
        shutil.rmtree(out)
        return results

    with monkeypatch.context() as patch:
        patch.setattr("preprocess.run.make_shards", removed)
        assert convert(source, out) == 1
    assert "start the same command again" in line(capsys)
    assert convert(source, out) == 0
    assert tree(out) == whole


def test_too_many_rejects_say_which_option_goes_on(tmp_path: Path, capsys: Any) -> None:
    source, out = folder(tmp_path / "source", {"train": 12}, {"train/a/bad.jpg": BROKEN}), tmp_path / "out"
    assert convert(source, out) == 1
    said = line(capsys)
    assert "add --max-rejects 0.08; or mend them in the source and start in another directory" in said
    assert "the same command goes on" not in said
    assert convert(source, out, "--max-rejects", "0.08") == 0
