"""`preprocess` with OUT behind a URL: a real S3 server on loopback, and what goes wrong on the way to it."""

import contextlib
import errno
import signal
import threading
from collections import namedtuple
from pathlib import Path

import fsspec
import pytest

from preprocess.__main__ import main
from shards.common.errors import ShardfeedError
from shards.dataset import open_dataset
from shards.remote.cache import Cache, cache_home
from shards.remote.object_store import ObjectStore
from tests.helpers.forks import fork_workers
from tests.helpers.jobs import convert, folder, line, tree
from tests.helpers.kill import kill_when, start
from tests.helpers.s3 import ACCESS, S3, SECRET, Request, first

pytest_plugins = ("tests.helpers.s3_server",)

SETTINGS = ["--short-side", "16", "--shard-size", "4", "--workers", "1"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("remote") / "source"
    return folder(root, {"train": 14, "validation": 3}, {"train/a/bad.jpg": b"no image"})


@pytest.fixture(scope="module")
def whole(source: Path) -> dict[str, bytes]:
    """What one process makes of the source on disk."""
    return made_on_disk(source, "0")


@pytest.fixture(scope="module")
def whole_by_seed_1(source: Path) -> dict[str, bytes]:
    """The same with another seed."""
    return made_on_disk(source, "1")


def made_on_disk(source: Path, seed: str) -> dict[str, bytes]:
    out = source.parent / f"whole{seed}"
    assert convert(source, out, "--max-rejects", "0.5", "--seed", seed) == 0
    return tree(out)


def upload(source: Path | str, url: str, *options: str) -> int:
    # Without --force, as users do: the estimate lists what OUT holds.
    with pytest.MonkeyPatch.context() as patch:
        fork_workers(patch)
        return main([str(source), url, *SETTINGS, "--max-rejects", "0.5", *options])


def staged() -> list[Path]:
    return list((cache_home() / "staging").rglob("*.tar"))


def test_the_same_bytes_as_on_disk_and_nothing_left_behind(s3: S3, source: Path, whole: dict[str, bytes]) -> None:
    assert upload(source, f"{s3.url}/out") == 0
    assert s3.tree("out") == whole
    assert list((cache_home() / "staging").iterdir()) == []


def test_two_workers_make_the_same_at_their_first_run(s3: S3, source: Path, whole: dict[str, bytes]) -> None:
    """Their files are newer than the listing that this process made before it started them."""
    assert upload(source, f"{s3.url}/out", "--workers", "2") == 0
    assert s3.tree("out") == whole


def test_two_workers_make_slices_and_go_on(s3: S3, source: Path, whole: dict[str, bytes]) -> None:
    for number in (1, 0):
        assert upload(source, f"{s3.url}/out", "--tasks", f"{number}/2", "--workers", "2") == 0
    s3.remove("out/.work/train-00001.json")
    assert upload(source, f"{s3.url}/out", "--workers", "2") == 0
    assert s3.tree("out") == whole


def test_shards_come_before_their_markers_and_the_manifest_last(
    s3: S3, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert upload(source, f"{s3.url}/out") == 0
    puts = [request.path.partition("/out/")[2] for request in s3.requests if request.method == "PUT"]
    assert puts[0] == ".work/plan.json"
    assert puts[-1] == "manifest.json"
    for number in range(4):
        assert puts.index(f"train/train-{number:05d}.tar") < puts.index(f".work/train-{number:05d}.json")
    assert f"(see {s3.url}/out/train/rejects.jsonl)" in capsys.readouterr().out


def test_what_was_uploaded_is_read(s3: S3, source: Path, tmp_path: Path) -> None:
    upload(source, f"{s3.url}/out")
    split = open_dataset(f"{s3.url}/out", Cache(tmp_path / "cache"))["train"]
    assert len(split) == 14


@pytest.mark.parametrize("fault", ["error", "cut", "wrong"])
def test_uploads_that_fail_for_a_moment_are_repeated(s3: S3, source: Path, whole: dict[str, bytes], fault: str) -> None:
    # What is read back wrong is taken for a wrong upload; an answer that is cut off, for one that was lost.
    s3.fault = first(1, fault, method="PUT" if fault == "error" else "GET")
    assert upload(source, f"{s3.url}/out") == 0
    assert s3.tree("out") == whole


def test_a_store_that_stays_down_stops_the_job_which_goes_on_later(
    s3: S3,
    source: Path,
    whole: dict[str, bytes],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shards.remote.object_store.ATTEMPTS", 2)
    s3.fault = first(1000, "error", suffix="train-00002.tar", method="PUT")
    capsys.readouterr()
    assert upload(source, f"{s3.url}/out", "--debug") == 1
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert f"{s3.url}/out/train/train-00002.tar cannot be uploaded (2 attempts; the last: OSError" in said
    assert "2 of 5 shards are finished and kept; the same command goes on from there" in said
    assert ACCESS not in said
    assert SECRET not in said
    assert "manifest.json" not in s3.tree("out")
    s3.fault = lambda request: ""
    s3.requests.clear()
    assert upload(source, f"{s3.url}/out") == 0
    made = s3.tree("out")
    assert made == whole
    assert not any(SECRET.encode() in data or ACCESS.encode() in data for data in made.values())
    uploaded = [r.path.rpartition("/")[2] for r in s3.requests if r.method == "PUT" and r.path.endswith(".tar")]
    assert uploaded == ["train-00002.tar", "train-00003.tar", "validation-00000.tar"]


def test_a_shard_that_never_comes_back_right_is_an_error(
    s3: S3, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    s3.fault = first(1000, "wrong", suffix="train-00001.tar")
    capsys.readouterr()
    assert upload(source, f"{s3.url}/out") == 1
    assert f"{s3.url}/out/train/train-00001.tar comes back with other bytes than were sent" in capsys.readouterr().err
    assert ".work/train-00001.json" not in s3.tree("out")


def test_slices_and_finish_equal_one_run(s3: S3, source: Path, whole: dict[str, bytes]) -> None:
    for number in (2, 0, 1):
        assert upload(source, f"{s3.url}/out", "--tasks", f"{number}/3") == 0
        assert "manifest.json" not in s3.tree("out")
    assert upload(source, f"{s3.url}/out", "--finish") == 0
    assert s3.tree("out") == whole


def test_the_index_of_another_shard_is_refused_and_its_shard_made_again(
    s3: S3, source: Path, whole: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    assert upload(source, f"{s3.url}/out", "--tasks", "0/1") == 0
    s3.put("out/.work/train-00001.parquet", s3.tree("out")[".work/train-00000.parquet"])
    assert upload(source, f"{s3.url}/out", "--finish") == 1
    assert "out/.work/train-00001.parquet is not what was uploaded there" in line(capsys)
    assert "manifest.json" not in s3.tree("out")
    s3.remove("out/.work/train-00001.parquet")
    assert upload(source, f"{s3.url}/out") == 0
    assert s3.tree("out") == whole


def test_finish_names_what_is_missing(s3: S3, source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    upload(source, f"{s3.url}/out", "--tasks", "0/2")
    ObjectStore(f"{s3.url}/out").remove("train/train-00001.tar")
    capsys.readouterr()
    assert upload(source, f"{s3.url}/out", "--finish") == 1
    assert "4 of 5 shards are missing or damaged: train-00001.tar, train-00002.tar" in capsys.readouterr().err


def test_what_is_finished_stays_and_other_settings_are_refused(
    s3: S3, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    upload(source, f"{s3.url}/out", "--tasks", "0/2")
    capsys.readouterr()
    assert upload(source, f"{s3.url}/out", "--seed", "1") == 2
    assert f"{s3.url}/out holds an unfinished data set made differently (--seed 0 there, 1 here)" in line(capsys)
    upload(source, f"{s3.url}/out")
    before = s3.tree("out")
    capsys.readouterr()
    assert upload(source, f"{s3.url}/out") == 0
    assert f"{s3.url}/out is complete already" in capsys.readouterr().out
    assert upload(source, f"{s3.url}/out", "--seed", "1") == 2
    assert "holds a different data set (--seed 0 there, 1 here)" in line(capsys)
    assert s3.tree("out") == before


def test_a_place_of_other_things_and_repair_are_refused(
    s3: S3, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ObjectStore(f"{s3.url}/out").write("thesis.tex", b"...")
    assert upload(source, f"{s3.url}/out") == 2
    assert f"{s3.url}/out holds other files (thesis.tex) and no data set of this program" in line(capsys)
    assert main([str(source), f"{s3.url}/new", "--repair"]) == 2
    assert "--repair mends a directory" in line(capsys)


def test_a_web_server_and_a_bucket_that_is_not_there_are_refused_at_once(
    s3: S3, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert upload(source, f"{s3.endpoint}/{s3.bucket}/out") == 2
    assert "a web server cannot be written to: give a directory, or s3://" in line(capsys)
    assert s3.requests == []
    assert upload(source, "s3://no-such-bucket/out") == 1
    said = line(capsys)
    assert "s3://no-such-bucket/out/.work/plan.json cannot be written: FileNotFoundError" in said
    assert "check the spelling of the bucket" in said
    assert upload(source, "s3:/bucket/out") == 2
    assert "s3:/bucket/out is not a URL: write s3://BUCKET/PATH" in line(capsys)


def test_a_store_that_does_not_say_which_condition_failed_keeps_what_is_there(
    s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = ObjectStore(f"{s3.url}/out")
    remote.create("plan", b"first")

    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EINVAL, "At least one of the preconditions you specified did not hold.")

    monkeypatch.setattr(fsspec.filesystem("s3"), "pipe_file", refused)
    remote.create("plan", b"second")
    assert remote.read("plan") == b"first"
    monkeypatch.setattr("shards.remote.object_store.ATTEMPTS", 2)
    with pytest.raises(ShardfeedError, match="cannot be written"):
        remote.create("another", b"...")


def plan_of(s3: S3, source: Path, tmp_path: Path, *options: str) -> Path:
    """A directory that holds the plan of a job alone, as it lies in OUT."""
    upload(source, f"{s3.url}/elsewhere", "--tasks", "0/5", *options)
    (tmp_path / "plan" / ".work").mkdir(parents=True)
    (tmp_path / "plan" / ".work" / "plan.json").write_bytes(s3.tree("elsewhere")[".work/plan.json"])
    return tmp_path / "plan"


@pytest.mark.parametrize("moment", [".work/train-00001.json", ".work/validation-00000.json"])
def test_of_two_jobs_that_both_wrote_their_plan_the_first_stops_and_the_other_takes_nothing_of_it(
    s3: S3,
    source: Path,
    tmp_path: Path,
    whole_by_seed_1: dict[str, bytes],
    capsys: pytest.CaptureFixture[str],
    moment: str,
) -> None:
    """As on a store that cannot create in one step; the second plan comes after some shards, or all of them."""
    theirs = plan_of(s3, source, tmp_path, "--seed", "1")

    def other_begins(request: Request) -> str:
        if request.method == "PUT" and request.path.endswith(f"/out/{moment}"):
            s3.upload(theirs, "out")
        return ""

    s3.fault = other_begins
    capsys.readouterr()
    assert upload(source, f"{s3.url}/out") == 2
    assert "holds an unfinished data set made differently (--seed 1 there, 0 here)" in capsys.readouterr().err
    assert "manifest.json" not in s3.tree("out")
    s3.fault = lambda request: ""
    assert upload(source, f"{s3.url}/out", "--seed", "1") == 0
    assert s3.tree("out") == whole_by_seed_1


def test_a_job_whose_data_set_another_one_finished_says_so(
    s3: S3, source: Path, whole: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    def other_ends(request: Request) -> str:
        if request.method == "PUT" and request.path.endswith(".work/train-00002.json"):
            s3.remove("out/.work")
        return ""

    s3.fault = other_ends
    capsys.readouterr()
    assert upload(source, f"{s3.url}/out") == 1
    assert f"another job has finished or removed {s3.url}/out meanwhile" in capsys.readouterr().err
    s3.fault = lambda request: ""
    assert upload(source, f"{s3.url}/out") == 0
    assert s3.tree("out") == whole


def test_a_shard_that_disappears_while_the_job_runs_is_missed_in_the_end(
    s3: S3, source: Path, whole: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    def lost(request: Request) -> str:
        if request.method == "PUT" and request.path.endswith(".work/validation-00000.json"):
            s3.remove("out/train/train-00001.tar")
        return ""

    s3.fault = lost
    capsys.readouterr()
    assert upload(source, f"{s3.url}/out") == 1
    assert "files of 1 of 5 finished shards have disappeared meanwhile: train-00001.tar." in capsys.readouterr().err
    assert "manifest.json" not in s3.tree("out")
    s3.fault = lambda request: ""
    assert upload(source, f"{s3.url}/out") == 0
    assert s3.tree("out") == whole


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [("0", "0"), ("0", "1")])
def test_two_machines_that_begin_at_the_same_moment(
    s3: S3,
    source: Path,
    tmp_path: Path,
    whole: dict[str, bytes],
    whole_by_seed_1: dict[str, bytes],
    seeds: tuple[str, str],
) -> None:
    both = threading.Barrier(2)

    def together(request: Request) -> str:
        if request.method == "PUT" and request.path.endswith("plan.json"):
            with contextlib.suppress(threading.BrokenBarrierError):
                both.wait(20)
        return ""

    s3.fault = together
    words = ["preprocess", source, f"{s3.url}/out", *SETTINGS, "--max-rejects", "0.5", "--seed"]
    jobs = [start(*words, seed, XDG_CACHE_HOME=str(tmp_path / f"machine{number}")) for number, seed in enumerate(seeds)]
    said = [job.communicate(timeout=120)[1] for job in jobs]
    first = next(number for number, job in enumerate(jobs) if job.returncode == 0)
    last = jobs[1 - first].returncode
    if seeds == ("0", "1"):
        assert last == 2
        assert (
            "holds an unfinished data set made differently" in said[1 - first]
            or "a different data set" in said[1 - first]
        )
    else:
        assert last == 0 or "another job has finished" in said[1 - first]
    made = {name: data for name, data in s3.tree("out").items() if not name.startswith(".work/")}
    assert made == (whole if seeds[first] == "0" else whole_by_seed_1)


def test_a_dry_run_writes_nothing(s3: S3, source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(source), f"{s3.url}/out", *SETTINGS, "--dry-run"]) == 0
    assert f"-> {s3.url}/out" in capsys.readouterr().out
    assert not [request for request in s3.requests if request.method != "GET" and request.method != "HEAD"]


@pytest.mark.slow
def test_a_killed_job_goes_on(s3: S3, source: Path, whole: dict[str, bytes]) -> None:
    arrived: list[str] = []

    def stall(request: Request) -> str:
        if request.method == "PUT" and request.path.endswith("train-00002.tar"):
            arrived.append(request.path)
            return "slow"
        return ""

    s3.fault = stall
    job = start("preprocess", source, f"{s3.url}/out", *SETTINGS, "--max-rejects", "0.5")
    kill_when(job, lambda: bool(arrived))
    job.communicate()
    assert job.returncode == -signal.SIGKILL
    assert staged()
    assert upload(source, f"{s3.url}/out") == 0
    assert s3.tree("out") == whole


def test_a_source_behind_a_url_is_fetched_once(s3: S3, source: Path, tmp_path: Path, whole: dict[str, bytes]) -> None:
    url = s3.upload(source, "source")
    s3.fault = first(1, "error", suffix=".jpg")
    for number in range(2):
        s3.requests.clear()
        assert upload(url, str(tmp_path / f"out{number}")) == 0
        made = tree(tmp_path / f"out{number}")
        assert made.keys() == whole.keys()
        for name in made.keys() - {"manifest.json"}:  # which names the source
            assert made[name] == whole[name]
    assert s3.gets(".jpg") == []


def test_too_little_room_for_the_copy_of_a_source_or_for_the_stage_is_said_beforehand(
    s3: S3, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = s3.upload(source, "source")
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(10**12, 0, 3_000))
    s3.requests.clear()
    assert upload(url, str(tmp_path / "out")) == 1
    assert f"the copy of {url} needs about " in (said := line(capsys))
    assert "and 3.0 kB are free there: free some space, or set XDG_CACHE_HOME" in said
    assert s3.gets(".jpg") == []
    assert upload(source, f"{s3.url}/out") == 1
    assert "making 1 shards at the same time needs about " in line(capsys)
    assert not [name for name in s3.tree("out") if name.endswith(".tar")]
    assert upload(source, f"{s3.url}/out", "--force") == 0


def test_names_that_lead_out_of_the_copy_are_refused(
    s3: S3, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = s3.upload(source, "source")
    s3.put("source/train/../../../../escaped.jpg", b"...")
    assert upload(url, str(tmp_path / "out")) == 2
    assert "escaped.jpg cannot be a file here" in line(capsys)
    assert not list(tmp_path.rglob("escaped.jpg"))


def test_a_source_that_is_not_there(s3: S3, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert upload(f"{s3.url}/nothing", str(tmp_path / "out")) == 2
    assert f"there are no files at {s3.url}/nothing" in line(capsys)
