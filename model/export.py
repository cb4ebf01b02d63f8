"""python -m model export MODEL.pth --output FILE: the network for other programs, which need nothing of this project.

FILE.pt2 is a torch.export program (`torch.export.load`), FILE.onnx is ONNX; a name without an ending writes both.
Each takes normalised images (batch, 3, size, size), float32, of any batch size, and gives logits (batch, classes).
Each holds class names, normalisation and sizes: FILE.pt2 in its extra file `about.json`, FILE.onnx in its metadata
entry `shardfeed`. Each is loaded again and its logits compared with the network's. With --json, or without a terminal,
the last line is JSON.

The mean over an image and its mirror image, where the description says `flip_tta`, is left to the other program.
"""

import dataclasses
import importlib.util
import io
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.options import Export
from model.weights import About, load_model
from shards.common.atomic import replacing
from shards.common.cli import show_result
from shards.common.errors import MissingDependency, ShardfeedError, UsageError
from shards.common.terminal import wrapped

PROGRAM, ONNX = ".pt2", ".onnx"
ABOUT_FILE, ABOUT_KEY = "about.json", "shardfeed"

# Batch sizes. The graph is traced with one and checked with the other, so that a batch size fixed in it is noticed.
TRACED, CHECKED = 2, 3
# Largest accepted difference of a logit, as a part of the largest logit: other kernels sum float32 in another order.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Written:
    """A file, and the largest difference of its logits, as a part of the largest logit; None if not compared."""

    path: Path
    difference: float | None


def run(options: Export) -> None:
    """Writes the files and prints how their logits compare with the network's, and on stderr what the model is.

    Raises as `load_model` does; UsageError for another ending; MissingDependency where ONNX's packages are not
    installed; ShardfeedError, without leaving the file, where its logits differ from the network's.
    """
    wanted = _files(options.output)
    if any(path.suffix == ONNX for path in wanted):
        _require_onnx()
    network, about = load_model(options.model)
    print(wrapped(f"{options.model}: {about}", sys.stderr), file=sys.stderr)
    written = [WRITERS[path.suffix](network, about, path) for path in wanted]
    for file in written:
        print(wrapped(f"{file.path}: {file.path.stat().st_size / 2**20:.1f} MiB, {_compared(file.difference)}"))
    show_result(written)


def _compared(difference: float | None) -> str:
    """How a file's logits compare with the network's, in words."""
    if difference is None:
        return "not compared with the network: onnxruntime is not installed"
    if difference == 0:
        return "gives exactly the logits of the network"
    return f"gives the logits of the network to within {difference:.1g} times the largest of them"


def _files(output: Path) -> list[Path]:
    if output.suffix in WRITERS:
        return [output]
    if output.suffix in ("", ".pth"):
        return [output.with_suffix(suffix) for suffix in WRITERS]
    raise UsageError(f"--output {output} ends neither in {PROGRAM} nor in {ONNX}: choose one, or no ending for both")


def export_program(network: nn.Module, about: About, path: Path) -> Written:
    """Writes a torch.export program to `path`; see `run` for what is raised."""
    program = _traced(network, about)
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={ABOUT_FILE: _json(about)})
    buffer.seek(0)
    difference = _difference(network, about, torch.export.load(buffer).module(), path)
    _write(path, buffer.getvalue())
    return Written(path, difference)


def export_onnx(network: nn.Module, about: About, path: Path) -> Written:
    """Writes ONNX to `path`; compared where onnxruntime is installed. See `run` for what is raised."""
    _require_onnx()
    exported = torch.onnx.export(
        _traced(network, about),
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=({0: "batch"},),  # otherwise the axis would have the name of a symbol of the tracer
        dynamo=True,
        verbose=False,
    )
    assert exported is not None
    model = exported.model_proto
    entry = model.metadata_props.add()
    entry.key, entry.value = ABOUT_KEY, _json(about)
    data = model.SerializeToString()
    difference = None
    if importlib.util.find_spec("onnxruntime"):
        import onnxruntime

        session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])

        def logits(images: Tensor) -> Tensor:
            return torch.from_numpy(session.run(None, {"images": images.numpy()})[0])

        difference = _difference(network, about, logits, path)
    _write(path, data)
    return Written(path, difference)


WRITERS: dict[str, Callable[[nn.Module, About, Path], Written]] = {PROGRAM: export_program, ONNX: export_onnx}


def _traced(network: nn.Module, about: About) -> torch.export.ExportedProgram:
    example = torch.zeros(TRACED, 3, about.size, about.size)
    with torch.no_grad():
        return torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))


@torch.inference_mode()
def _difference(network: nn.Module, about: About, other: Callable[[Tensor], Any], path: Path) -> float:
    """The largest difference between the logits of both for random images, as a part of the largest logit."""
    images = torch.randn(CHECKED, 3, about.size, about.size, generator=torch.Generator().manual_seed(0))
    expected = network(images)
    difference = float((other(images) - expected).abs().max() / expected.abs().max().clamp_min(1e-12))
    if not difference <= TOLERANCE:
        raise ShardfeedError(
            f"{path} was not written: its logits differ from the network's by {difference:.1g} times the largest of "
            f"them, and up to {TOLERANCE:g} would be rounding"
        )
    return difference


def _require_onnx() -> None:
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingDependency(
            f"{' and '.join(missing)} not installed, needed for ONNX: pip install 'shardfeed[export]', or give an "
            f"--output that ends in {PROGRAM}"
        )


def _json(about: About) -> str:
    return json.dumps(dataclasses.asdict(about))


def _write(path: Path, data: bytes) -> None:
    with replacing(path) as file:
        file.write(data)
