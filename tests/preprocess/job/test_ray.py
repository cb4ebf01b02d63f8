"""Shards made on a Ray cluster, started here with two workers: the same bytes, whatever dies."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from preprocess.__main__ import main
from preprocess.job.ray import _result
from shards.common.errors import ShardfeedError
from tests.helpers.forks import Popen
from tests.helpers.jobs import convert, folder, line, tree
from tests.helpers.kill import descendants, kill_when, start, wait_until
from tests.helpers.s3 import S3

pytest_plugins = ("tests.helpers.s3_server",)

SETTINGS = ["--short-side", "16", "--shard-size", "4", "--force"]
RAY = ["--executor", "ray", "--workers", "2"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(tmp_path_factory.mktemp("ray") / "source", {"train": 120, "validation": 5})


@pytest.fixture(scope="module")
def whole(source: Path) -> dict[str, bytes]:
    """What one process makes of the source."""
    assert convert(source, source.parent / "whole") == 0
    return tree(source.parent / "whole")


def start_on_ray(source: Path, out: Path | str) -> Popen:
    pytest.importorskip("ray", reason="needs the extra ray")
    return start("preprocess", source, out, *SETTINGS, *RAY)


def markers(out: Path) -> int:
    return len(list(out.glob(".work/*.json")))


@pytest.mark.slow
def test_a_cluster_uploads_the_same_bytes_though_a_worker_is_killed(
    s3: S3, source: Path, whole: dict[str, bytes]
) -> None:
    def uploaded() -> int:
        put = [each.path for each in s3.requests if each.method == "PUT" and "/.work/" in each.path]
        return len({path for path in put if path.endswith(".json")}) - 1  # one is the plan

    job = start_on_ray(source, f"{s3.url}/out")
    wait_until(lambda: uploaded() > 3 or job.poll() is not None)
    # Without one of its agents a node ends, which is another accident than a worker's.
    titles = {each: words for each, words in descendants(job.pid).items() if words.startswith("ray::")}
    workers = [each for each, words in titles.items() if "Agent" not in words]
    assert len(workers) >= 2
    at_work = [each for each in workers if ".tar" in titles[each] or "_make" in titles[each]]
    os.kill((at_work or workers)[0], signal.SIGKILL)
    before = uploaded()
    said = job.communicate(timeout=120)
    assert job.returncode == 0, said
    assert before < 32  # there was something left to do
    assert s3.tree("out") == whole


@pytest.mark.slow
def test_ctrl_c_cancels_and_the_job_goes_on_without_a_cluster(
    source: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    job = start_on_ray(source, out)
    wait_until(lambda: markers(out) > 3 or job.poll() is not None)
    of_job = descendants(job.pid)
    kill_when(job, lambda: True, signal.SIGINT)
    _, said = job.communicate(timeout=60)
    assert job.returncode == 130
    assert "shards are finished and kept; the same command goes on from there" in said
    assert "Traceback" not in said
    gone_by = time.monotonic() + 20
    while [each for each in of_job if Path(f"/proc/{each}/cmdline").exists()] and time.monotonic() < gone_by:
        time.sleep(0.05)
    assert [words for each, words in of_job.items() if Path(f"/proc/{each}/cmdline").exists()] == []
    assert not list(out.rglob("*.part"))
    assert not (out / "manifest.json").exists()
    assert convert(source, out) == 0
    assert tree(out) == whole


class Raising:
    """Stands for Ray where getting a result raises."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.exceptions = pytest.importorskip("ray.exceptions", reason="needs the extra ray")

    def get(self, reference: Any) -> Any:
        raise self.error


def test_what_a_task_raises_comes_as_it_was() -> None:
    errors = pytest.importorskip("ray.exceptions", reason="needs the extra ray")
    own = ShardfeedError("row 7 cannot be read")
    with pytest.raises(ShardfeedError, match=r"^row 7 cannot be read$"):
        _result(Raising(errors.RayTaskError("_make", "a traceback", own)), None, ("train", 3))
    with pytest.raises(
        ShardfeedError, match=r"the workers that made train-00003.tar died 6 times \(WorkerCrashedError"
    ):
        _result(Raising(errors.WorkerCrashedError()), None, ("train", 3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--address", "auto"], "--address names a Ray cluster: give --executor ray too"),
        (["--executor", "ray", "--tasks", "0/2"], "--executor ray makes all shards and does not go with --tasks"),
    ],
)
def test_what_does_not_go_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert main(["synthetic:train=4", str(tmp_path / "out"), *options]) == 2
    assert message in line(capsys)


def test_without_ray_the_extra_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["synthetic:train=4", str(tmp_path / "out"), "--executor", "ray", "--force"]) == 1
    assert "--executor ray needs Ray: pip install 'shardfeed[ray]'" in line(capsys)
