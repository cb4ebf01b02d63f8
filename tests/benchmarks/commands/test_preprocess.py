"""`python -m benchmarks preprocess`, from the command line to the table and the JSON line."""

import itertools
import json
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.commands.preprocess import OURS, PIL, Work, table, write_ours, write_pil
from preprocess.sources import open_source
from preprocess.sources.source import Row
from tests.conftest import decoded, jpeg, photo

SPREAD = {"median": 400.0, "least": 390.0, "most": 410.0}


def work(scratch: Path) -> Work:
    source = open_source("synthetic:train=4,validation=1,classes=2")
    return Work(write_ours, source, "train", 32, 90, 4, scratch, (0, 1, 2, 3))


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
    write_ours(replace(work(tmp_path), encoding="raw"), 0, rows())
    (path,) = tmp_path.rglob("*.tar")
    with tarfile.open(path) as archive:
        assert [member.name for member in archive.getmembers()[:2]] == ["00000000.ppm", "00000000.cls"]


@pytest.mark.slow
def test_the_command_measures_all_and_leaves_only_its_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "source" / "train" / "ant"
    folder.mkdir(parents=True)
    for seed in range(6):
        (folder / f"{seed}.jpg").write_bytes(jpeg(photo(40, 50, seed)))
    words = ["--source", str(folder.parents[1]), "--out", str(tmp_path / "out"), "--short-side", "16"]
    assert main(["preprocess", *words, "--rounds", "1", "--seconds", "0.2", "--shard-size", "100"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["images_per_s_and_core"].keys() == result["images_per_s"].keys() == result["peak_mb"].keys()
    ours, pil = (result["images_per_s_and_core"][name]["median"] for name in (OURS, PIL))
    assert result["ratio_to_pil_by_core"]["median"] == pytest.approx(ours / pil, rel=0.01)
    assert result["clean"] == 1
    (path,) = (tmp_path / "out").iterdir()
    assert json.loads(path.read_text()) == result


def test_the_table_shows_every_contender() -> None:
    names = [PIL, OURS]
    result = {
        "short_side": 256,
        "quality": 90,
        "images": 900,
        "clean": 0.977,
        "rounds": 3,
        "seconds": 5.0,
        "date": "2026-01-02T03:04:05+00:00",
        "hardware": {"cpu": "A CPU", "cores": 2},
        "images_per_s": dict.fromkeys(names, SPREAD),
        "images_per_s_and_core": dict.fromkeys(names, SPREAD),
        "start_up_s": dict.fromkeys(names, 2.5),
        "peak_mb": dict.fromkeys(names, 355),
        **dict.fromkeys(("ratio_to_pil", "ratio_to_pil_by_core", "two_to_one"), SPREAD),
    }
    text = table(result)
    assert "97.7% of them clean" in text
    assert [line.split()[0] for line in text.splitlines() if " 355" in line] == ["PIL", "shardfeed"]


@pytest.mark.parametrize("words", [["--short-side", "3"], ["--split", "none"]])
def test_options_that_make_no_sense_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["preprocess", "--source", "synthetic:train=4", *words]) == 2
    assert len(list(itertools.islice(capsys.readouterr().err.splitlines(), 2))) == 1
