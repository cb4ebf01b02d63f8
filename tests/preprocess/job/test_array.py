"""Several jobs on one OUT: slices of an array side by side, and what is refused."""

import os
import signal
from pathlib import Path

import pytest

from preprocess.__main__ import main
from preprocess.job.plan import Plan
from preprocess.job.task import WORK, plan_path
from tests.helpers.jobs import convert, folder, line, tree
from tests.helpers.kill import group_exists, kill_when, start, wait_until

SETTINGS = ["--short-side", "16", "--shard-size", "4", "--workers", "1"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return folder(tmp_path / "source", {"train": 23, "validation": 5})


def finish(source: Path, out: Path) -> int:
    return main([str(source), str(out), *SETTINGS, "--finish"])


@pytest.mark.slow
def test_four_slices_at_the_same_moment_and_finish_equal_one_run(source: Path, tmp_path: Path) -> None:
    convert(source, tmp_path / "whole")
    out = tmp_path / "out"
    jobs = [start("preprocess", source, out, *SETTINGS, "--tasks", f"{number}/4") for number in range(4)]
    said = [job.communicate()[1] for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0, 0, 0], said
    assert not (out / "manifest.json").exists()
    assert finish(source, out) == 0
    assert tree(out) == tree(tmp_path / "whole")


@pytest.mark.parametrize("count", [1, 3, 11])
def test_slices_one_after_the_other_equal_one_run(source: Path, tmp_path: Path, count: int) -> None:
    convert(source, tmp_path / "whole")
    for number in reversed(range(count)):
        assert convert(source, tmp_path / "out", "--tasks", f"{number}/{count}") == 0
    assert finish(source, tmp_path / "out") == 0
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_finish_names_what_is_missing_or_damaged(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    convert(source, out, "--tasks", "0/2")
    (out / "train" / "train-00002.tar").write_bytes(b"damaged")
    capsys.readouterr()
    assert finish(source, out) == 1
    missing = "train-00002.tar, train-00004.tar, train-00005.tar, validation-00000.tar, validation-00001.tar"
    assert f"5 of 8 shards are missing or damaged: {missing}." in line(capsys)
    assert not (out / "manifest.json").exists()
    assert convert(source, out) == 0  # makes the rest without further ado


def test_a_slice_says_what_comes_next(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    convert(source, tmp_path / "out", "--tasks", "1/2")
    said = capsys.readouterr().out
    assert "slice 1/2 is done: 12 images" in said
    assert "--finish" in said


def test_a_slice_with_other_settings_is_refused(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    convert(source, tmp_path / "out", "--tasks", "0/2")
    capsys.readouterr()
    assert convert(source, tmp_path / "out", "--tasks", "1/2", "--seed", "1") == 2
    assert "--seed 0 there, 1 here" in line(capsys)


def test_too_many_rejects_over_all_slices_stop_the_finish(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = folder(tmp_path / "source", {"train": 20}, {"train/a/y.jpg": b"", "train/b/z.jpg": b""})
    for number in range(6):  # none holds more than the one that is allowed
        assert convert(source, tmp_path / "out", "--tasks", f"{number}/6", "--max-rejects", "0.09") == 0
    assert main([str(source), str(tmp_path / "out"), *SETTINGS, "--max-rejects", "0.05", "--finish"]) == 1
    assert "2 of the 22 images of train cannot be used" in capsys.readouterr().err


def test_the_plan_that_was_written_first_stays(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    convert(source, out, "--tasks", "0/2")
    first = plan_path(out).read_bytes()
    plan = Plan.read(plan_path(out))
    Plan(**{**vars(plan), "source": "elsewhere"}).write(plan_path(out))
    assert plan_path(out).read_bytes() == first
    assert [path.name for path in (out / WORK).iterdir() if "plan" in path.name] == ["plan.json"]


def test_a_file_system_without_hard_links_has_a_plan_too(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    assert convert(source, tmp_path / "out") == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "to_group", "status"),
    [
        (signal.SIGINT, True, 130),
        (signal.SIGTERM, True, 143),
        (signal.SIGTERM, False, 143),
        (signal.SIGHUP, False, 129),
    ],
)
def test_a_running_job_keeps_others_away_and_stops_cleanly(
    source: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
    to_group: bool,
    status: int,
) -> None:
    folder(source, {"train": 400})
    out = tmp_path / "out"
    job = start("preprocess", source, out, *SETTINGS, "--workers", "2", "--shard-size", "2")
    wait_until(lambda: bool(list(out.glob(".work/train-*.json"))) or job.poll() is not None)
    assert main([str(source), str(out), *SETTINGS]) == 1
    assert f"another job is at work on {out} (process {job.pid})" in line(capsys)
    assert main([str(source), str(out), *SETTINGS, "--tasks", "3/4"]) == 1
    assert f"another job is at work on slice 3/4 of {out}" in line(capsys)
    kill_when(job, lambda: True, number, group=to_group)
    _, said = job.communicate(timeout=60)
    assert job.returncode == status
    assert "shards are finished and kept; the same command goes on" in said
    if status != 130:
        assert f"stopped by {number.name}: " in said
    assert "Traceback" not in said
    wait_until(lambda: not group_exists(job.pid))
    assert not list(out.rglob("*.part"))
