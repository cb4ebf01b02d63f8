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


@pytest.mark.parametrize(("size", "times"), [(150, 1), (128, 1), (127, 2), (32, 4), (1, 128)])
def test_the_grid_holds_every_image_and_tiny_ones_enlarged(size: int, times: int) -> None:
    images = np.stack([photo(150, 150, seed)[:size, :size] for seed in range(5)])
    sheet = np.asarray(grid(images, [f"class {i}" for i in range(5)]))
    columns, side = 3, size * times
    for i, image in enumerate(images):
        left, top = GAP + i % columns * (side + GAP), GAP + i // columns * (side + 16 + GAP)
        assert np.array_equal(sheet[top : top + side : times, left : left + side : times], image)
        assert np.array_equal(
            sheet[top + times - 1 : top + side : times, left + times - 1 : left + side : times], image
        )


def test_a_long_caption_is_cut_to_its_tile() -> None:
    sheet = grid(np.stack([photo(140, 140)] * 2), ["m" * 200, "x"])
    assert sheet.width == 2 * (140 + GAP) + GAP


def test_preview_writes_a_picture(small_split: Split, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "deep" / "preview.png"
    assert shards("preview", str(small_split.root), "--output", str(output), "--size", "32", "--count", "6") == 0
    with Image.open(output) as picture:
        assert picture.format == "PNG"
    assert f"{output}: 6 images of the split train, cropped to 32 x 32 pixels" in capsys.readouterr().out


def test_preview_takes_the_size_that_fits(
    small_split: Split, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["preview", str(small_split.root), "--count", "2", "--output", str(tmp_path / "p.png")]
    assert shards(*words) == 0
    assert "cropped to 40 x 40 pixels" in capsys.readouterr().out
    write_split(tmp_path, [jpeg(photo(40, 40))] * 2, short_side=40)
    assert shards("preview", str(tmp_path), "--size", "64", *words[-2:]) == 2
    error = capsys.readouterr().err
    assert (
        "choose --size 40 or less, with `python -m shards preview --pad 5` for 40, or nothing is left to crop" in error
    )


def test_a_crop_that_does_not_fit_names_the_options_of_preview(
    small_split: Split, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = str(tmp_path / "a.png")
    assert shards("preview", str(small_split.root), "--output", output, "--size", "60", "--resize", "40") == 2
    assert "choose --size 40 or less, or a larger --resize\n" in capsys.readouterr().err


def test_preview_of_more_images_than_there_are_says_so(
    small_split: Split, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--output", str(tmp_path / "p.PNG"), "--size", "32", "--count", "5000"]
    assert shards("preview", str(small_split.root), *words) == 0
    assert "29 images of the split train, which has no more (--count 5,000)" in capsys.readouterr().out


@pytest.mark.parametrize("output", ["p.jpg", "p", "/proc/p.png"])
def test_a_wrong_picture_is_refused_before_the_data_set_is_opened(
    output: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shards("preview", "nowhere", "--output", output) == 2
    assert f"{output} " in capsys.readouterr().err


def test_preview_without_flips_mirrors_nothing(small_split: Split, tmp_path: Path) -> None:
    words = ["preview", str(small_split.root), "--size", "32", "--count", "16", "--output"]
    drawn = {}
    for name, more in (("usual", []), ("straight", ["--no-flip"])):
        assert shards(*words, str(tmp_path / f"{name}.png"), *more) == 0
        drawn[name] = np.asarray(Image.open(tmp_path / f"{name}.png"))
    columns, side = 6, 32 * 4
    mirrored = 0
    for i in range(16):
        left, top = GAP + i % columns * (side + GAP), GAP + i // columns * (side + 16 + GAP)
        usual, straight = (each[top : top + side, left : left + side] for each in drawn.values())
        same = np.array_equal(usual, straight)
        assert same or np.array_equal(usual, straight[:, ::-1])
        mirrored += not same
    assert 0 < mirrored < 16


def test_preview_of_an_absent_split_names_those_there(small_split: Split, capsys: pytest.CaptureFixture[str]) -> None:
    assert shards("preview", str(small_split.root), "--split", "tset") == 2
    assert "no split 'tset': it has train" in capsys.readouterr().err


def test_info_prints_what_is_there(small_split: Split, capsys: pytest.CaptureFixture[str]) -> None:
    assert shards("info", str(small_split.root)) == 0
    printed = capsys.readouterr().out
    assert "29 in 5 shards" in printed
    assert "shorter side 40" in printed


@pytest.mark.parametrize(
    ("classes", "listed"), [(2, "2: class 0, class 1"), (5, "5: class 0, class 1, class 2, class 3, ...")]
)
def test_info_ends_its_classes_in_dots_where_there_are_more(
    classes: int, listed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_split(tmp_path, [jpeg(photo(40, 40))] * 5, short_side=40, classes=classes)
    assert shards("info", str(tmp_path)) == 0
    assert f"classes      {listed}\n" in capsys.readouterr().out


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


def test_info_names_an_index_file_that_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    split = write_split(tmp_path, [jpeg(photo(40, 40))] * 9, short_side=40)
    split.shard_paths[0].with_suffix(".idx").unlink()
    assert shards("info", str(tmp_path)) == 1
    assert "1 file (" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--count 0", "--count must be 1 or more, not 0"),
        ("--epoch -1", "--epoch must be 0 or more, not -1"),
        ("--pad 4 --crop rrc", "--pad is for --crop random, not rrc"),
        ("--size 0", "--size must be 1 or more, not 0"),
    ],
)
def test_a_wrong_value_is_named_by_its_option(
    words: str, said: str, small_split: Split, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shards("preview", str(small_split.root), "--output", str(tmp_path / "p.png"), *words.split()) == 2
    assert said in capsys.readouterr().err
