"""The file of weights: its description, the network that it alone gives, and damage."""

import random
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from model import build_model
from model.__main__ import main
from model.weights import About, about_of, load_model, read_saved, save_weights
from shards.common.errors import ShardfeedError, UsageError
from shards.decode import MEAN, STD

ABOUT = About("resnet18", ("cat", "dog", "bird"), size=32, resize=36, blur_pool=True)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A blurred resnet18 for three classes."""
    torch.manual_seed(0)
    path = tmp_path / "model.pth"
    save_weights(build_model("resnet18", 3, blur_pool=True), path, ABOUT)
    return path


def test_the_file_alone_gives_the_network_and_what_it_is(saved: Path) -> None:
    torch.manual_seed(0)
    expected = build_model("resnet18", 3, blur_pool=True).eval()
    network, about = load_model(saved)
    assert about == ABOUT
    assert (about.mean, about.std) == (MEAN, STD)
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(network(images), expected(images))


def test_the_file_is_still_a_plain_state_dict(saved: Path) -> None:
    state = torch.load(saved, weights_only=True)
    build_model("resnet18", 3, blur_pool=True).load_state_dict(state)
    assert all(value.is_contiguous() and value.device.type == "cpu" for value in state.values())


def test_weights_that_say_nothing_of_themselves_are_refused(tmp_path: Path) -> None:
    save_weights(nn.Linear(1, 1), tmp_path / "bare.pth")
    torch.save({"state": 1}, tmp_path / "other.pth")
    for name in ("bare.pth", "other.pth"):
        with pytest.raises(UsageError, match=f"{name} does not say which model and classes"):
            load_model(tmp_path / name)


@pytest.mark.parametrize(
    "wrong", [{"size": "32"}, {"size": 0}, {"resize": 10**9}, {"class_names": "ab"}, {"mean": (0.5, 0.5)}, {"model": 3}]
)
def test_a_description_with_a_wrong_value_is_none(wrong: dict[str, Any], saved: Path) -> None:
    state = read_saved(saved)
    assert about_of(state) == ABOUT
    state.shardfeed |= wrong
    assert about_of(state) is None


def test_an_unknown_model_is_named_with_the_file(tmp_path: Path) -> None:
    save_weights(nn.Linear(1, 1), tmp_path / "new.pth", About("vit_5000", ("a",), 32, 32))
    with pytest.raises(UsageError, match=r"new\.pth: unknown model 'vit_5000'"):
        load_model(tmp_path / "new.pth")


def test_weights_of_another_shape_than_named_are_called_damaged(tmp_path: Path) -> None:
    save_weights(nn.Linear(1, 1), tmp_path / "odd.pth", About("cnn", ("a",), 32, 32))
    with pytest.raises(ShardfeedError, match=r"odd\.pth is damaged: its weights do not fit cnn"):
        load_model(tmp_path / "odd.pth")


def test_a_failed_write_leaves_what_was_there(saved: Path) -> None:
    before = saved.read_bytes()

    class Unpicklable(nn.Linear):
        def state_dict(self, *args: object, **kwargs: object) -> dict[str, object]:  # type: ignore[override]
            return {"weight": self.weight, "lambda": lambda: None}

    with pytest.raises(AttributeError):
        save_weights(Unpicklable(1, 1), saved)
    assert saved.read_bytes() == before


def flip(path: Path, bit: int) -> None:
    """Changes one bit of a file; again, it is as it was."""
    with path.open("r+b") as file:
        file.seek(bit // 8)
        byte = file.read(1)[0] ^ (1 << bit % 8)
        file.seek(bit // 8)
        file.write(bytes([byte]))


def test_a_changed_bit_is_refused_or_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "small.pth"
    save_weights(nn.Sequential(nn.Linear(40, 30), nn.BatchNorm1d(30)), path, ABOUT)
    expected, bits = read_saved(path), 8 * path.stat().st_size
    refused = 0
    for bit in random.Random(0).sample(range(bits), 100):
        flip(path, bit)
        try:
            found = read_saved(path)
        except ShardfeedError:
            refused += 1
        else:  # between two entries of the archive
            assert about_of(found) == ABOUT
            assert list(found) == list(expected)
            assert all(torch.equal(found[name], expected[name]) for name in expected)
        flip(path, bit)
    assert refused > 50
    read_saved(path)


def test_a_bit_of_the_archive_s_directory_cannot_blank_a_tensor(tmp_path: Path) -> None:
    path = tmp_path / "small.pth"
    save_weights(nn.Linear(4, 3), path, ABOUT)
    name = path.read_bytes().rindex(b"archive/data/0")  # its last mention: in the archive's directory
    flip(path, 8 * (name - 8) + 4)  # the external attributes before the name then say that it is a directory
    with pytest.raises(ShardfeedError, match=r"small\.pth is damaged"):
        read_saved(path)


def test_each_command_refuses_a_weight_with_a_changed_bit(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with zipfile.ZipFile(saved) as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
    flip(saved, 8 * (largest.header_offset + largest.file_size // 2))
    for words in (
        ["predict", str(saved), __file__],
        ["export", str(saved), "--output", str(tmp_path / "model.pt2")],
    ):
        assert main(words) == 1
        [line] = capsys.readouterr().err.splitlines()
        assert f"{saved} is damaged: the checksum of " in line
    assert not (tmp_path / "model.pt2").exists()
