"""Files that are named as weights: another kind is a mistake of the user, damage a failure; told without torch."""

import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from model.__main__ import main
from model.options import require_weights
from model.start import read_start
from model.weights import load_model
from shards.common.errors import ShardfeedError, UsageError
from tests import ROOT
from tests.conftest import jpeg, photo


def archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("notes.txt", "no weights")


def cut(path: Path) -> None:
    torch.save({"weight": torch.ones(1000)}, path)
    path.write_bytes(path.read_bytes()[:2000])


@pytest.mark.parametrize(
    ("name", "make", "said"),
    [
        ("notes.pth", lambda path: path.write_text("no weights"), "was not written by torch.save: give the .pth file"),
        ("photo.jpg", lambda path: path.write_bytes(jpeg(photo(16, 16))), "was not written by torch.save"),
        ("zip.pth", archive, "was not written by torch.save"),
        ("them.safetensors", lambda path: path.write_text("no weights"), "is no file of safetensors"),
        ("list.pth", lambda path: torch.save([1, 2], path), "holds no plain state dict"),
        ("module.pth", lambda path: torch.save(torch.nn.Linear(1, 1), path), "holds more than tensors"),
    ],
)
def test_another_kind_of_file_is_a_mistake(name: str, make: Callable[[Path], Any], said: str, tmp_path: Path) -> None:
    make(tmp_path / name)
    with pytest.raises(UsageError, match=f"{name} {said}"):
        read_start(tmp_path / name)


def newer(path: Path) -> None:
    """One byte of the archive's directory says a version of the format that zipfile does not know."""
    torch.save({"weight": torch.ones(1000)}, path)
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 6] = 99
    path.write_bytes(data)


@pytest.mark.parametrize("make", [Path.touch, cut, newer], ids=["empty", "cut off", "newer"])
def test_a_damaged_file_is_a_failure(make: Callable[[Path], Any], tmp_path: Path) -> None:
    make(tmp_path / "weights.pth")
    require_weights(tmp_path / "weights.pth")
    for read in (read_start, load_model):
        with pytest.raises(ShardfeedError, match="is damaged") as caught:
            read(tmp_path / "weights.pth")
        assert not isinstance(caught.value, UsageError)


def test_a_file_of_another_kind_is_told_before_torch_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "notes.pth").write_text("no weights")
    for program, words in (
        ("model", ["predict", str(tmp_path / "notes.pth"), __file__]),
        ("model", ["export", str(tmp_path / "notes.pth"), "--output", str(tmp_path / "out")]),
        ("train", ["--data", str(tmp_path), "--evaluate", str(tmp_path / "notes.pth")]),
        ("train", ["--data", str(tmp_path), "--init", str(tmp_path / "notes.pth")]),
    ):
        code = f"import sys\nfrom {program}.__main__ import main\nprint(main({words}), 'torch' in sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
        assert (done.stdout, done.stderr.count("\n")) == ("2 False\n", 1), words
        assert "was not written by torch.save" in done.stderr


def test_predict_says_so_with_the_status_of_a_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(torch.nn.Linear(1, 1), tmp_path / "module.pth")
    assert main(["predict", str(tmp_path / "module.pth"), __file__]) == 2
    assert "module.pth holds more than tensors and plain values" in capsys.readouterr().err
