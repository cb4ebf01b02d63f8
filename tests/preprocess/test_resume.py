"""Jobs that were stopped: the same command resumes them and ends with the same bytes, another one is refused."""

import shutil
import sys
from pathlib import Path

import pytest

from preprocess.__main__ import main
from preprocess.job.task import ShardJob, ShardResult
from preprocess.job.workers import Progress
from preprocess.sources.source import Row, StoredSource
from tests.conftest import jpeg, photo
from tests.helpers.jobs import Interruption, convert, count_reads, folder, interrupt_at, line, tree
from tests.helpers.kill import kill_when, start


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return folder(tmp_path / "source", {"train": 23, "validation": 5})


@pytest.mark.parametrize("rows", [0, 1, 4, 11, 24, 27])
def test_an_interrupted_job_goes_on_and_ends_the_same(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], rows: int
) -> None:
    convert(source, tmp_path / "whole")
    with monkeypatch.context() as patch:
        interrupt_at(patch, rows)
        assert convert(source, tmp_path / "out") == 1
    # Shards of the 23 and 5 rows hold 4, 4, 4, 4, 4, 3 and 3, 2.
    finished = sum(rows >= end for end in (4, 8, 12, 16, 20, 23, 26))
    said = capsys.readouterr().err
    assert f"{finished} of 8 shards are finished and kept; the same command goes on from there" in said
    assert ("and converts the images of unfinished shards again" in said) == (finished < 8)
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert len(list((tmp_path / "out").rglob("*.tar"))) == finished
    read = count_reads(monkeypatch)
    assert convert(source, tmp_path / "out") == 0
    assert len(read) == 28 - sum((4, 4, 4, 4, 4, 3, 3)[:finished])
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


@pytest.mark.parametrize("damage", ["tar", "idx", "json", "parquet", "missing"])
def test_shards_damaged_in_between_are_made_again(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    convert(source, tmp_path / "whole")
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        interrupt_at(patch, 11)
        convert(source, out)
    victims = {
        "tar": out / "train" / "train-00001.tar",
        "idx": out / "train" / "train-00001.idx",
        "json": out / ".work" / "train-00001.json",
        "parquet": out / ".work" / "train-00001.parquet",
        "missing": out / "train" / "train-00001.tar",
    }
    if damage == "missing":
        victims[damage].unlink()
    else:
        data = bytearray(victims[damage].read_bytes())
        data[len(data) // 2] ^= 0xFF
        victims[damage].write_bytes(data)
    assert convert(source, out) == 0
    assert tree(out) == tree(tmp_path / "whole")


def test_killed_between_the_manifest_and_the_cleaning_up(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert(source, tmp_path / "whole")

    def killed(*_: object, **__: object) -> None:
        raise Interruption

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        assert convert(source, tmp_path / "out") == 1
    assert (tmp_path / "out" / ".work").exists()
    assert convert(source, tmp_path / "out") == 0
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


@pytest.mark.parametrize("name", ["train/train-00001.tar", "train/train-00001.idx", ".work/train-00001.parquet"])
def test_a_file_that_disappears_while_the_job_runs_is_missed_in_the_end(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    convert(source, tmp_path / "whole")
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        read = StoredSource.row

        def row(self: StoredSource, split: str, row: int) -> Row:
            if split == "validation":
                (out / name).unlink(missing_ok=True)
            return read(self, split, row)

        patch.setattr(StoredSource, "row", row)
        capsys.readouterr()
        assert convert(source, out) == 1
    assert "files of 1 of 8 finished shards have disappeared meanwhile: train-00001.tar." in line(capsys)
    assert not (out / "manifest.json").exists()
    assert convert(source, out) == 0
    assert tree(out) == tree(tmp_path / "whole")


def test_a_killed_group_of_processes_goes_on_and_ends_the_same(source: Path, tmp_path: Path) -> None:
    folder(source, {"train": 120})
    convert(source, tmp_path / "whole")
    out = tmp_path / "out"
    job = start("preprocess", source, out, "--short-side", "16", "--shard-size", "4", "--workers", "2")
    kill_when(job, lambda: bool(list(out.glob(".work/train-*.json"))), group=True)
    job.communicate()
    assert convert(source, out, "--workers", "2") == 0
    assert tree(out) == tree(tmp_path / "whole")


def test_other_settings_on_a_half_done_data_set_are_refused_each_by_name(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        interrupt_at(patch, 11)
        convert(source, tmp_path / "out")
    capsys.readouterr()
    assert main([str(source), str(tmp_path / "out"), "--original", "--seed", "4", "--workers", "1"]) == 2
    said = line(capsys)
    assert "unfinished data set made differently" in said
    assert "(--short-side 16 there, --original here; --shard-size 4 there, 1000 here; --seed 0 there, 4 here)" in said


def test_another_source_on_a_half_done_data_set_is_refused(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        interrupt_at(patch, 11)
        convert(source, tmp_path / "out")
    capsys.readouterr()
    next((source / "train" / "a").iterdir()).write_bytes(jpeg(photo(9, 9)))
    assert convert(source, tmp_path / "out") == 2
    assert f"made differently (source {source} (" in line(capsys)


def test_a_moved_source_goes_on(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        interrupt_at(patch, 11)
        convert(source, tmp_path / "out")
    source.rename(tmp_path / "moved")
    assert convert(tmp_path / "moved", tmp_path / "out") == 0


def test_what_is_kept_after_a_stop_is_what_the_next_start_finds(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"

    def stopped(job: ShardJob, task: tuple[str, int], progress: Progress) -> ShardResult:
        """Ctrl-C that comes when a shard is finished, and nobody has been told."""
        result = made(job, task, progress)
        if task[1] == 1:
            raise KeyboardInterrupt
        return result

    made = ShardJob.run
    with monkeypatch.context() as patch:
        patch.setattr(ShardJob, "run", stopped)
        assert convert(source, out) == 130
    assert "stopped: 2 of 8 shards are finished and kept" in capsys.readouterr().err
    assert convert(source, out) == 0
    assert "2 shards were finished before\n" in capsys.readouterr().out


def test_a_job_with_nothing_left_to_do_says_so(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr("preprocess.run.finish", lambda *_: sys.exit(143))
        with pytest.raises(SystemExit):
            convert(source, out)
    capsys.readouterr()
    assert convert(source, out) == 0
    said = capsys.readouterr().out
    assert f"{out}: nothing was left to do, 8 shards were finished before\n" in said
    assert "images/s" not in said
