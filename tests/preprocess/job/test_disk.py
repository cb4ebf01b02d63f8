"""Disks without room: asked beforehand, and found out half-way."""

import errno
import json
import os
import random
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from preprocess.__main__ import main
from tests import ROOT
from tests.helpers.jobs import convert, folder, line, tree

SETTINGS = ["--short-side", "16", "--shard-size", "4", "--workers", "1"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return folder(tmp_path / "source", {"train": 23, "validation": 5})


def leave_free(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**12, 0, count))


def test_too_little_room_is_refused_before_the_first_shard(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    leave_free(monkeypatch, 50_000)
    assert main([str(source), str(tmp_path / "out"), *SETTINGS]) == 1
    said = line(capsys)
    assert "28 images need about" in said
    assert f"50.0 kB are free in {tmp_path}" in said
    assert not list((tmp_path / "out").rglob("*.tar"))
    assert main([str(source), str(tmp_path / "out"), *SETTINGS, "--force"]) == 0


def test_what_is_finished_needs_no_more_room(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    convert(source, tmp_path / "out", "--tasks", "0/2")
    convert(source, tmp_path / "out", "--tasks", "2/4")
    leave_free(monkeypatch, 50_000)
    capsys.readouterr()
    assert main([str(source), str(tmp_path / "out"), *SETTINGS]) == 0
    assert " for 5 images; 5 in " in capsys.readouterr().out


def test_a_dry_run_prints_the_plan_and_writes_nothing(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    leave_free(monkeypatch, 50_000)
    before = tree(tmp_path)
    assert main([str(source), str(tmp_path / "out"), *SETTINGS, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "train: 23 images in 6 shards of at most 4" in said
    assert "validation: 5 images in 2 shards of at most 3" in said
    assert "--short-side 16, --encoding jpeg, --quality 90, --shard-size 4, --seed 0, --order global" in said
    assert "kB for 28 images; 28 in " in said
    figures = json.loads(said.splitlines()[-1])["estimate"]
    assert (figures["rows"], figures["shards"], figures["workers"]) == (28, 8, 1)
    assert 0 < figures["bytes"] <= figures["bytes_at_most"]
    assert 0 < figures["seconds_at_least"] < figures["seconds_at_most"]
    assert "50.0 kB, which is not enough" in said
    assert tree(tmp_path) == before
    assert not (tmp_path / "out").exists()


def test_a_dry_run_in_the_middle_tells_what_is_left(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    convert(source, tmp_path / "out", "--tasks", "0/2")
    before = tree(tmp_path)
    capsys.readouterr()
    assert main([str(source), str(tmp_path / "out"), *SETTINGS, "--dry-run", "--tasks", "1/4"]) == 0
    said = capsys.readouterr().out
    assert "slice 1/4: 2 of 8 shards" in said
    assert "4 of 8 shards are finished already" in said
    assert " for 12 images; 0 in slice 1/4 in " in said
    assert tree(tmp_path) == before


class FillingFile:
    """A file on a disk with so many bytes left, all files together."""

    left = 0

    def __init__(self, file: Any) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> "FillingFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, data: bytes) -> int:
        FillingFile.left -= len(data)
        if FillingFile.left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return int(self._file.write(data))


def fill_after(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    opened = Path.open

    def open_filling(path: Path, mode: str = "r", *rest: Any, **named: Any) -> Any:
        file = opened(path, mode, *rest, **named)
        return FillingFile(file) if "w" in mode else file

    FillingFile.left = count
    monkeypatch.setattr(Path, "open", open_filling)


def test_a_disk_that_fills_up_at_any_write_keeps_what_is_finished(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        fill_after(patch, 10**9)
        convert(source, tmp_path / "whole")
    written = 10**9 - FillingFile.left
    whole = tree(tmp_path / "whole")
    out = tmp_path / "out"
    places = random.Random(0)
    capsys.readouterr()
    for count in [0, written - 1, *(places.randrange(written) for _ in range(12))]:
        with monkeypatch.context() as patch:
            fill_after(patch, count)
            assert convert(source, out) == 1
        said = line(capsys)
        assert f"there is no space left for {out}: free some" in said
        assert "the same command goes on" in said.lower()
        shards = list((out / ".work").glob("*-*.json"))
        assert not list(out.rglob("*.part"))
        if "shards are finished" in said:
            assert f"{len(shards)} of 8 shards are finished and kept" in said
        assert convert(source, out) == 0
        assert tree(out) == whole
        shutil.rmtree(out)
        capsys.readouterr()


ON_A_SMALL_DISK = """
import subprocess, sys
from preprocess.__main__ import main
source, disk, *settings = sys.argv[1:]
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", disk], check=True)
print("first", main([source, disk + "/out", *settings]), flush=True)
print("forced", main([source, disk + "/out", *settings, "--force"]), flush=True)
subprocess.run(["mount", "-o", "remount,size=4m", disk], check=True)
print("resumed", main([source, disk + "/out", *settings]), flush=True)
subprocess.run(["cp", "-r", disk + "/out", disk + "-copy"], check=True)
"""


def test_a_small_file_system_fills_up_and_the_job_goes_on_when_it_grew(source: Path, tmp_path: Path) -> None:
    # In a namespace of its own the mount needs no privileges and is gone with the process.
    namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    disk = tmp_path / "disk"
    disk.mkdir()
    if (
        shutil.which("unshare") is None
        or subprocess.run([*namespace, "mount", "-t", "tmpfs", "tmpfs", str(disk)], capture_output=True).returncode
    ):
        pytest.skip("this machine allows no mounts in user namespaces")
    folder(source, {"train": 60})
    convert(source, tmp_path / "whole")
    done = subprocess.run(
        [*namespace, sys.executable, "-c", ON_A_SMALL_DISK, str(source), str(disk), *SETTINGS],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    refused, stopped = [line for line in done.stderr.strip().splitlines() if not line.endswith(" ...")]
    assert "65 images need about" in refused
    assert "are free in" in refused
    assert "there is no space left" in stopped
    assert "shards are finished and kept" in stopped
    assert "first 1\nforced 1\n" in done.stdout
    assert "shards were finished before\n" in done.stdout
    assert done.stdout.endswith("resumed 0\n")
    assert tree(Path(f"{disk}-copy")) == tree(tmp_path / "whole")
