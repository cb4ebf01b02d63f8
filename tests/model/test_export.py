"""`python -m model export`: files that give the network's logits without this project."""

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from model import build_model, export
from model.__main__ import main
from model.weights import About, load_model, save_weights

ABOUT = About("resnet18", ("cat", "dog", "bird"), size=32, resize=36, blur_pool=True)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A blurred resnet18 of three classes."""
    torch.manual_seed(0)
    path = tmp_path / "model.pth"
    save_weights(build_model("resnet18", 3, blur_pool=True), path, ABOUT)
    return path


def test_a_program_gives_the_network_s_logits_for_any_batch_size(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "out" / "model.pt2"
    assert main(["export", str(weights), "--output", str(path)]) == 0
    [written] = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert written["path"] == str(path)
    assert 0 <= written["difference"] < export.TOLERANCE
    extra = {export.ABOUT_FILE: ""}
    program = torch.export.load(path, extra_files=extra)
    assert json.loads(extra[export.ABOUT_FILE])["class_names"] == ["cat", "dog", "bird"]
    network, _ = load_model(weights)
    for count in (1, 5):
        images = torch.randn(count, 3, 32, 32)
        with torch.inference_mode():
            torch.testing.assert_close(program.module()(images), network(images))
    assert list(path.parent.iterdir()) == [path]


def test_onnx_gives_the_network_s_logits_for_any_batch_size(weights: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    path = tmp_path / "model.onnx"
    assert main(["export", str(weights), "--output", str(path)]) == 0
    model = onnx.load(path)
    [entry] = [entry for entry in model.metadata_props if entry.key == export.ABOUT_KEY]
    assert json.loads(entry.value)["class_names"] == ["cat", "dog", "bird"]
    axes = [
        (each.name, each.type.tensor_type.shape.dim[0].dim_param) for each in (*model.graph.input, *model.graph.output)
    ]
    assert axes == [("images", "batch"), ("logits", "batch")]
    session = onnxruntime.InferenceSession(path.read_bytes())
    network, _ = load_model(weights)
    for count in (1, 5):
        images = torch.randn(count, 3, 32, 32)
        [logits] = session.run(None, {"images": images.numpy()})
        with torch.inference_mode():
            torch.testing.assert_close(torch.from_numpy(logits), network(images), rtol=1e-4, atol=1e-4)


def test_without_an_ending_both_are_written(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def writer(network: nn.Module, about: About, path: Path) -> export.Written:
        path.touch()
        return export.Written(path, None)

    monkeypatch.setattr(export, "WRITERS", dict.fromkeys((export.PROGRAM, export.ONNX), writer))
    monkeypatch.setattr(export, "_require_onnx", lambda: None)
    assert main(["export", str(weights), "--output", str(weights.parent / "new")]) == 0
    assert (weights.parent / "new.pt2").exists()
    assert (weights.parent / "new.onnx").exists()


def test_without_the_extra_the_message_names_it_and_nothing_is_written(
    weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert main(["export", str(weights), "--output", str(weights.parent / "new")]) == 1
    error = capsys.readouterr().err.strip()
    assert "onnxscript not installed" in error
    assert "shardfeed[export]" in error
    assert list(weights.parent.iterdir()) == [weights]


def test_a_file_with_other_logits_is_not_written(
    weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = build_model("resnet18", 3).eval()
    program = torch.export.export(other, (torch.zeros(3, 3, 32, 32),))
    monkeypatch.setattr(export, "_traced", lambda network, about: program)
    path = weights.parent / "wrong.pt2"
    assert main(["export", str(weights), "--output", str(path)]) == 1
    assert "wrong.pt2 was not written: its logits differ" in capsys.readouterr().err
    assert not path.exists()


@pytest.mark.parametrize(
    ("model", "output", "message"),
    [("model.pth", "new.tflite", "ends neither in .pt2 nor in .onnx"), ("no.pth", "new.pt2", "no.pth is not a file")],
)
def test_mistakes_are_one_line(
    model: str, output: str, message: str, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(weights.parent / model), "--output", str(weights.parent / output)]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error


@pytest.mark.parametrize(
    ("difference", "words"),
    [
        (0.0, "gives exactly the logits of the network"),
        (3e-7, "gives the logits of the network to within 3e-07 times the largest of them"),
        (None, "not compared with the network: onnxruntime is not installed"),
    ],
)
def test_a_comparison_in_words(difference: float | None, words: str) -> None:
    assert export._compared(difference) == words
