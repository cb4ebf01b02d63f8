"""The lines that a conversion ends with work for the data set that it made."""

import shlex
from pathlib import Path

import pytest

from preprocess.__main__ import main
from tests.conftest import jpeg, photo
from tests.helpers.jobs import folder, write_files
from train.__main__ import main as train
from train.__main__ import parse_config
from train.config import Config
from train.data import held_out_split


def printed(out: Path, capsys: pytest.CaptureFixture[str], *options: str) -> list[str]:
    """The lines after the job; the source is an image folder beside `out`."""
    capsys.readouterr()
    given = [str(out.parent / "source"), str(out), "--workers", "1", "--shard-size", "8", *options]
    assert main(given) == 0
    lines = capsys.readouterr().out.splitlines()
    return [each.strip() for each in lines[lines.index("these lines work now:") + 1 : -1]]  # the last is JSON


@pytest.mark.parametrize(
    ("splits", "options", "expected", "held_out"),
    [
        ({"train": 24, "val": 5}, ["--short-side", "16"], "--size 16", "val"),
        ({"train": 24}, ["--original"], "--size 22 --val-fraction 0.05", "train"),
        ({"train": 9, "val": 5}, ["--short-side", "16", "--encoding", "raw"], "--size 16 --batch-size 9", "val"),
        ({"train": 9}, ["--short-side", "16"], "--size 16 --val-fraction 0.05 --batch-size 8", "train"),
    ],
)
def test_each_line_works(
    splits: dict[str, int],
    options: list[str],
    expected: str,
    held_out: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder(tmp_path / "source", splits)
    out = tmp_path / "the data"
    training, evaluation, loop = printed(out, capsys, *options)
    assert training == f"python -m train --data '{out}' {expected}"
    words = shlex.split(training)[3:]
    assert train([*words, "--check", "--device", "cpu", "--threads", "1"]) == 0
    config = parse_config(shlex.split(evaluation)[3:])
    assert config.evaluate == (Config(out).out / "imagenet_trained_model.pth",)
    chosen = held_out_split(config)
    assert chosen is not None
    assert chosen.name == held_out
    names: dict[str, object] = {}
    exec(f"{loop}\nwith loader: images, labels = next(iter(loader))", names)
    assert printed(out, capsys, *options) == [training, evaluation, loop]  # complete already


def test_a_data_set_without_a_split_to_train_on_has_a_loader_and_no_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder(tmp_path / "source", {"test": 5})
    (loop,) = printed(tmp_path / "out", capsys, "--short-side", "16")
    exec(f"{loop}\nwith loader: assert len(next(iter(loader))[1]) == 5")


def test_the_usual_size_is_not_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder(tmp_path / "source", {"train": 20, "validation": 2})
    training, *_, loop = printed(tmp_path / "out", capsys, "--short-side", "256", "--enlarge")
    assert training == f"python -m train --data {tmp_path / 'out'}"
    assert loop.endswith("batch_size=20, train=True)")


def test_images_that_the_crop_would_cut_nothing_off_get_a_border(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_files(tmp_path / "source", {f"train/a/{i}.jpg": jpeg(photo(32, 32, seed=i)) for i in range(20)})
    training, evaluation, loop = printed(tmp_path / "out", capsys, "--short-side", "32")
    assert "--size 32 --pad 4 --val-fraction" in training
    assert parse_config(shlex.split(training)[3:]).feeding.pad == 4
    assert parse_config(shlex.split(evaluation)[3:]).feeding.pad == 4
    names: dict[str, object] = {}
    assert "size=32, padding=4)" in loop
    exec(f"{loop}\nwith loader: images, labels = next(iter(loader))", names)
