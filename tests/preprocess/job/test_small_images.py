"""Images smaller than --short-side: most of a source stop the job, a few are enlarged and counted."""

from pathlib import Path

import pytest

from preprocess.__main__ import main
from shards.dataset import open_dataset
from tests.conftest import jpeg, photo
from tests.helpers.jobs import BROKEN, line, tree, write_files
from tests.helpers.pictures import picture, saved

ODD = {"train/b/gray.png": saved(picture("L"), "PNG"), "train/b/broken.jpg": BROKEN[:40], "train/b/text.jpg": b"text"}


def source_of(root: Path, sides: list[int]) -> Path:
    """An image folder whose images have these shorter sides."""
    images = {f"train/{'ab'[i % 2]}/{i}.jpg": jpeg(photo(side, side + 3, i)) for i, side in enumerate(sides)}
    return write_files(root, images)


def convert(source: Path, out: Path, *options: str) -> int:
    return main([str(source), str(out), "--shard-size", "4", "--workers", "1", *options])


def test_mostly_small_images_stop_the_job_before_it_writes_with_the_value_that_fits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = source_of(tmp_path / "source", [32] * 9 + [64] * 8), tmp_path / "out"
    assert convert(source, out, "--short-side", "48") == 2
    said = line(capsys)
    assert "9 of 17 sampled ones, whose median shorter side is 32 pixels" in said
    assert "give --short-side 32 to store them without enlarging most, or --enlarge" in said
    assert not out.exists()
    assert convert(source, out, "--short-side", "48", "--dry-run") == 2
    assert convert(source, out, "--short-side", "32") == 0
    assert convert(source, tmp_path / "enlarged", "--short-side", "48", "--enlarge") == 0
    index = open_dataset(tmp_path / "enlarged")["train"].index
    assert {min(size) for size in zip(index.width, index.height, strict=True)} == {48}


def test_every_slice_and_every_start_again_stops_too_and_goes_on_with_enlarge(tmp_path: Path) -> None:
    source, out = source_of(tmp_path / "source", [32] * 16), tmp_path / "out"
    assert [convert(source, out, "--short-side", "48", "--tasks", f"{i}/2") for i in (0, 1)] == [2, 2]
    sliced = ["--short-side", "48", "--tasks"]
    assert [convert(source, out, *sliced, f"{i}/2", "--enlarge") for i in (0, 1)] == [0, 0]
    assert convert(source, out, "--short-side", "48", "--finish") == 0
    assert convert(source, out, "--short-side", "48") == 0  # complete already


def test_a_few_small_images_are_enlarged_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = source_of(tmp_path / "source", [32, 33] + [48] * 3 + [64] * 8), tmp_path / "out"
    assert convert(source, out, "--short-side", "48", "--workers", "2") == 0
    assert "\n  2 images enlarged to a shorter side of 48 pixels\n" in capsys.readouterr().out
    assert convert(source, tmp_path / "whole", "--short-side", "32") == 0
    assert "enlarged" not in capsys.readouterr().out
    assert convert(source, tmp_path / "forced", "--short-side", "48", "--enlarge") == 0
    assert tree(out) == tree(tmp_path / "forced")


def test_files_that_are_no_images_do_not_count(tmp_path: Path) -> None:
    source = write_files(source_of(tmp_path / "source", [32] * 2), ODD)
    assert convert(source, tmp_path / "out", "--short-side", "32", "--max-rejects", "1") == 0


def test_images_too_small_for_any_short_side_are_to_be_kept_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = source_of(tmp_path / "source", [5] * 4)
    assert convert(source, tmp_path / "out", "--short-side", "8") == 2
    assert "give --original to store them" in line(capsys)
    assert convert(source, tmp_path / "out", "--original") == 0


@pytest.mark.parametrize("other", ["--original", "--finish", "--repair"])
def test_enlarge_is_refused_where_it_would_do_nothing(
    other: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path), str(tmp_path / "out"), "--enlarge", other]) == 2
    assert "--enlarge" in line(capsys)
