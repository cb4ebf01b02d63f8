"""`python -m benchmarks verdict` with a planted bottleneck: a slow model. The judgement: stages/test_verdict.py."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

from benchmarks.commands import verdict
from benchmarks.commands.verdict import Options, measured
from benchmarks.measure.harness import Schedule
from benchmarks.measure.result import Series
from benchmarks.stages.recipe import configured
from shards.common.errors import UsageError
from shards.dataset import Split
from tests import ROOT
from tests.conftest import jpeg, photo, write_split
from train.data import training_size

# Far above what this machine gives, and far below.
PLENTY, LITTLE = 1e6, 5.0


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Split:
    """64 images large enough that decoding them is what takes the time."""
    images = [jpeg(photo(256, 300, seed)) for seed in range(16)] * 4
    return write_split(tmp_path_factory.mktemp("photographs"), images, short_side=256, shard_size=32)


class Slow(nn.Module):
    """A network that takes `seconds` a micro-batch, whatever is in it."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds
        self.head = nn.Linear(3, 10)

    def forward(self, images: Tensor) -> Tensor:
        time.sleep(self.seconds)
        logits: Tensor = self.head(images.mean((2, 3)))
        return logits


@pytest.mark.slow
def test_a_slow_model_is_found(photographs: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.run.build_model", lambda *_, **__: Slow(0.2))
    options = Options(photographs.root, recipe="cnn", seconds=0.1)
    config = configured("cnn", photographs.root)
    kept: list[list[Series]] = []
    _, found = measured(options, config, photographs, Schedule(1, 0.1), kept.append)
    assert len(kept[-1]) == 7
    assert found.bottleneck == "model"
    assert 0 < found.speeds["model"] <= 16 / 0.2


def test_the_command_says_it_in_words_and_ends_with_json(
    photographs: Split, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    verdict.run(Options(photographs.root, gpus=2, gpu_images_per_s=LITTLE, seconds=0.1, out=tmp_path))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("The model is the bottleneck: it trains 10.0 images/s on 2 GPUs")
    assert any(line.split() == ["model", "10.0"] for line in lines)
    assert any(line.startswith("What to change: Nothing in the loader") for line in lines)
    result = json.loads(lines[-1])
    assert result["settings"]["bottleneck"] == "model"
    assert result["findings"][0] == lines[0]
    [written] = tmp_path.glob("verdict-*.json")
    assert json.loads(written.read_text()) == result


@pytest.mark.parametrize(
    "wrong", [{"gpus": 0}, {"gpu_images_per_s": 0.0}, {"gpu_images_per_s": float("inf")}, {"recipe": "nonesuch"}]
)
def test_options_that_make_no_sense_are_refused(wrong: dict[str, Any], photographs: Split) -> None:
    with pytest.raises(UsageError):
        verdict.run(Options(photographs.root, **wrong))


MISTAKES = [
    "verdict --data DATA --recipe nonesuch",
    "verdict --data nowhere",
    "train --data DATA --recipe nonesuch",
    "train --data nowhere",
    "stages --data nowhere",
    "stages --data DATA --rounds 0",
    "loaders --data DATA --peers nonesuch",
    "peers --source S --sweep 0",
    "peers --source S --peers nonesuch",
]


def test_a_mistake_is_answered_before_the_large_libraries_are_loaded(photographs: Split) -> None:
    code = (
        "import sys; from benchmarks.__main__ import main\n"
        "for words in sys.argv[1:]: print(main(words.split(' ')))\n"
        "print(*{'torch', 'nvidia.dali', 'torchvision', 'matplotlib'} & sys.modules.keys())"
    )
    given = [words.replace("DATA", str(photographs.root)) for words in MISTAKES]
    done = subprocess.run([sys.executable, "-c", code, *given], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n") == ["2"] * len(MISTAKES) + ["", ""], done.stderr
    assert len(done.stderr.splitlines()) == len(MISTAKES)


def test_several_gpus_that_are_not_there_need_a_speed(photographs: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UsageError, match="--gpu-images-per-s"):
        verdict.run(Options(photographs.root, gpus=2))


def test_model_and_loader_are_measured_at_one_size() -> None:
    config = configured("rn18_16", Path("unused"), threads=2, order=None)
    assert config.threads == 2
    assert training_size(config, epoch=1) == config.size
