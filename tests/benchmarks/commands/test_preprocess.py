"""`python -m benchmarks preprocess`, from the command line to the table and the JSON line."""

import itertools
import json
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.__main__ import main
from benchmarks.commands.preprocess import (
    BY_CORE,
    OURS,
    PIL,
    TWO,
    Conversion,
    Options,
    summary,
    write_ours,
    write_pil,
)
from benchmarks.measure.harness import Interval, Schedule
from benchmarks.measure.result import read
from preprocess.sources import open_source
from preprocess.sources.source import Row
from shards.format.manifest import Settings
from tests import ROOT
from tests.conftest import decoded, jpeg, photo
from tests.helpers.forks import fork_workers


def work(scratch: Path) -> Conversion:
    source = open_source("synthetic:train=4,validation=1,classes=2")
    return Conversion(write_ours, source, "train", Settings(32, 90, 4), scratch, np.arange(4))


def rows() -> Iterator[Row]:
    return (Row(jpeg(photo(60, 80, seed)), seed % 2, "") for seed in range(4))


def test_both_workers_write_the_same_pictures(tmp_path: Path) -> None:
    contents = []
    for name, write in (("pil", write_pil), ("ours", write_ours)):
        (tmp_path / name / "train").mkdir(parents=True)
        write(work(tmp_path / name), 0, rows())
        (path,) = (tmp_path / name).rglob("*.tar")
        with tarfile.open(path) as archive:
            members = {member.name: archive.extractfile(member) for member in archive.getmembers()}
            contents.append({member: stream.read() for member, stream in members.items() if stream})
    pil, ours = contents
    assert pil.keys() == ours.keys()
    for name, data in ours.items():
        if name.endswith("jpg"):
            assert decoded(data).shape == decoded(pil[name]).shape == (32, 42, 3)
        else:
            assert data == pil[name]


def test_raw_pixels_are_written_as_such(tmp_path: Path) -> None:
    write_ours(replace(work(tmp_path), settings=Settings(32, 90, 4, encoding="raw")), 0, rows())
    (path,) = tmp_path.rglob("*.tar")
    with tarfile.open(path) as archive:
        assert [member.name for member in archive.getmembers()[:2]] == ["00000000.ppm", "00000000.cls"]


@pytest.mark.slow
def test_the_command_measures_all_and_leaves_only_its_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fork_workers(monkeypatch)
    folder = tmp_path / "source" / "train" / "ant"
    folder.mkdir(parents=True)
    for seed in range(6):
        (folder / f"{seed}.jpg").write_bytes(jpeg(photo(40, 50, seed)))
    words = ["--source", str(folder.parents[1]), "--out", str(tmp_path / "out"), "--short-side", "16"]
    assert main(["preprocess", *words, "--rounds", "1", "--seconds", "0.2", "--shard-size", "20"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    series = {each["name"]: each for each in result["series"]}
    assert {each["unit"] for each in result["series"]} == {"images/s", "images/s and core", "MB"}
    assert series[f"{PIL}, peak memory"]["values"][0] > 20
    ours, pil = (series[name + BY_CORE]["values"][0] for name in (OURS, PIL))
    by_core = next(each for each in result["ratios"] if each["of"] == OURS + BY_CORE)
    assert by_core["median"] == pytest.approx(ours / pil, rel=0.01)
    (path,) = (tmp_path / "out").iterdir()
    assert json.loads(path.read_text()) == result
    assert read(path).benchmark == "preprocess"


def test_the_result_has_every_contender() -> None:
    names = [PIL, OURS, TWO]
    intervals = {name: [Interval(400, 1.0, 0.5), Interval(390, 1.0, 0.5)] for name in names}
    peaks = {name: [355.0, 350.0] for name in names}
    result = summary(Options("S"), Schedule(2, 5.0), intervals, peaks, 900, failed={})
    assert result.title.startswith("Converting 900 images")
    for name in names:
        assert result[f"{name}, peak memory"].spread.most == 355
        assert result[name + BY_CORE].values == (800.0, 780.0)
    assert [(each.of, each.to, each.median) for each in result.ratios][1:] == [(OURS, PIL, 1.0), (TWO, OURS, 1.0)]


@pytest.mark.parametrize("words", [["--short-side", "3"], ["--split", "none"]])
def test_options_that_make_no_sense_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["preprocess", "--source", "synthetic:train=4", *words]) == 2
    assert len(list(itertools.islice(capsys.readouterr().err.splitlines(), 2))) == 1


def test_a_worker_whose_memory_is_measured_loads_no_torch() -> None:
    code = "import sys, benchmarks.commands.preprocess; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout == "False\n"
