from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shards.__main__ import COMMANDS
from shards.common.cli import run_commands
from shards.dataset import Split
from shards.preview import GAP, grid
from tests.conftest import jpeg, photo, write_split


def shards(*args: str) -> int:
    return run_commands("python -m shards", COMMANDS, args)


def test_the_grid_holds_every_image_unchanged() -> None:
    images = np.stack([photo(70, 70, seed) for seed in range(5)])
    sheet = np.asarray(grid(images, [f"class {i}" for i in range(5)]))
    columns = 3
    for i, image in enumerate(images):
        left, top = GAP + i % columns * (70 + GAP), GAP + i // columns * (70 + 16 + GAP)
        assert np.array_equal(sheet[top : top + 70, left : left + 70], image)


def test_a_long_caption_is_cut_to_its_tile() -> None:
    sheet = grid(np.stack([photo(70, 70)] * 2), ["m" * 200, "x"])
    assert sheet.width == 2 * (70 + GAP) + GAP


def test_preview_writes_a_picture(small_split: Split, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "deep" / "preview.png"
    assert shards("preview", str(small_split.root), "--output", str(output), "--size", "32", "--count", "6") == 0
    with Image.open(output) as picture:
        assert picture.format == "PNG"
    assert str(output) in capsys.readouterr().out


def test_preview_of_an_absent_split_names_those_there(small_split: Split, capsys: pytest.CaptureFixture[str]) -> None:
    assert shards("preview", str(small_split.root), "--split", "tset") == 2
    assert "no split 'tset': it has train" in capsys.readouterr().err


def test_info_prints_what_is_there(small_split: Split, capsys: pytest.CaptureFixture[str]) -> None:
    assert shards("info", str(small_split.root)) == 0
    printed = capsys.readouterr().out
    assert "29 in 5 shards" in printed
    assert "shorter side 40" in printed


def test_info_of_a_mistyped_path_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert shards("info", str(tmp_path / "nowhere")) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_info_names_a_shard_that_was_cut_off(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    split = write_split(tmp_path, [jpeg(photo(40, 40))] * 9, short_side=40)
    split.shard_paths[1].write_bytes(b"short")
    assert shards("info", str(tmp_path)) == 1
    error = capsys.readouterr().err
    assert "train-00001.tar" in error
    assert "shards verify" in error
