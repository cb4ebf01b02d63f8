"""The scripts of docs/examples train; one that was stopped goes on with the samples of a run that never was.

Every image has a label of its own, so the labels that reach the loss name the samples that were trained on.
"""

import dataclasses
import functools
import json
import runpy
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import ROOT
from tests.conftest import jpeg, photo, write_split
from tests.helpers.ranks import on_two_ranks

# What each needs besides torch.
SCRIPTS = {
    "plain": "torch",
    "lightning_module": "lightning",
    "accelerate_script": "accelerate",
    "hf_trainer": "transformers",
    "timm_loop": "timm",
}
SAVED_EVERY = 2
# An epoch of one rank has six steps. A run is killed after so many, and the newest checkpoint has so many.
STOPS = {3: 2, 6: 6, 9: 8}

Step = tuple[list[int], float]


def tiny(num_classes: int) -> torch.nn.Module:
    """A network that is quickly trained and saved, in place of a ResNet-18; its BatchNorm is state, too."""
    layers = (torch.nn.Conv2d(3, 8, 3, 4), torch.nn.BatchNorm2d(8), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1))
    return torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(8, num_classes))


def use_tiny_networks(script: str, patch: pytest.MonkeyPatch) -> None:
    if script == "hf_trainer":
        import transformers

        small: dict[str, Any] = {"embedding_size": 8, "hidden_sizes": [8], "depths": [1]}
        patch.setattr("transformers.ResNetConfig", functools.partial(transformers.ResNetConfig, **small))
    elif script == "timm_loop":
        patch.setattr("timm.create_model", lambda name, num_classes: tiny(num_classes))
    else:
        patch.setattr("torchvision.models.resnet18", tiny)


class Killed(Exception):
    pass


@dataclass(frozen=True)
class Run:
    """A run of a script, until step `stop` where there is one. A job of a rank, too: it writes its steps."""

    script: str
    data: Path
    out: Path
    stop: int | None = None
    steps: Path | None = None

    def __call__(self, rank: int) -> None:
        assert self.steps is not None
        self.steps.with_suffix(f".{rank}").write_text(json.dumps(self.trained()))

    def trained(self) -> list[Step]:
        """The labels and the loss of each training step."""
        seen: list[Step] = []
        cross_entropy = torch.nn.functional.cross_entropy

        def watched(logits: torch.Tensor, labels: torch.Tensor, *rest: Any, **options: Any) -> torch.Tensor:
            if torch.is_grad_enabled() and len(seen) == self.stop:
                raise Killed
            loss = cross_entropy(logits, labels, *rest, **options)
            if torch.is_grad_enabled():
                seen.append((labels.tolist(), loss.item()))
            return loss

        words = f"--data {self.data} --out {self.out} --epochs 2 --batch-size 4 --size 32 --save-steps {SAVED_EVERY}"
        with pytest.MonkeyPatch.context() as patch:
            use_tiny_networks(self.script, patch)
            patch.setattr("torch.nn.functional.cross_entropy", watched)
            try:
                runpy.run_path(str(ROOT / "docs" / "examples" / f"{self.script}.py"))["main"](words.split())
            except Killed:
                assert self.stop is not None
        return seen


@pytest.fixture(scope="module", autouse=True)
def alone_afterwards() -> Iterator[None]:
    """Trainers leave the process group and their own state to the end of the process, which has other tests to run."""
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    if "accelerate" in sys.modules:
        from accelerate import state

        state.AcceleratorState._reset_state(reset_partial_state=True)
        state.GradientState._reset_state()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 images to train on and 6 to validate on."""
    root = tmp_path_factory.mktemp("data")
    parts = [
        write_split(root, [jpeg(photo(40, 40 + i, i)) for i in range(count)], short_side=40, classes=24, name=name)
        for name, count in (("train", 24), ("val", 6))
    ]
    splits = {name: info for part in parts for name, info in part.manifest.splits.items()}
    dataclasses.replace(parts[0].manifest, splits=splits).write(root)
    return root


@pytest.fixture(scope="module", params=SCRIPTS)
def script(request: pytest.FixtureRequest) -> str:
    pytest.importorskip(SCRIPTS[request.param])
    return str(request.param)


@pytest.fixture(scope="module")
def whole(script: str, data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Step]:
    """Two epochs of a run that nothing stopped."""
    with pytest.MonkeyPatch.context() as patch:
        alone(patch)
        return Run(script, data, tmp_path_factory.mktemp("whole")).trained()


def test_the_plain_script_needs_no_torchrun(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert len(Run("plain", data, tmp_path / "out").trained()) == 12
    assert "of the validation images are right" in capsys.readouterr().out


def alone(patch: pytest.MonkeyPatch) -> None:
    """What torchrun sets for one process."""
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}.items():
        patch.setenv(name, value)
    patch.setenv("MASTER_PORT", "0")


def test_each_image_is_trained_on_once_an_epoch(whole: list[Step]) -> None:
    labels = [number for numbers, _ in whole for number in numbers]
    assert sorted(labels[:24]) == sorted(labels[24:]) == list(range(24))
    assert labels[:24] != labels[24:]


@pytest.mark.parametrize("stop", STOPS)
def test_a_run_that_was_killed_goes_on_with_the_next_batch(
    script: str, whole: list[Step], stop: int, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone(monkeypatch)
    assert Run(script, data, tmp_path / "out", stop).trained() == whole[:stop]
    resumed = Run(script, data, tmp_path / "out").trained()
    assert [labels for labels, _ in resumed] == [labels for labels, _ in whole[STOPS[stop] :]]
    if not torch.cuda.is_available():  # whose sums may come in another order
        assert resumed == whole[STOPS[stop] :]


@pytest.mark.slow
def test_two_ranks_that_were_killed_go_on_with_their_next_batches(data: Path, tmp_path: Path) -> None:
    runs = [("whole", "undisturbed", None), ("stopped", "out", 4), ("resumed", "out", None)]
    on_two_ranks([Run("plain", data, tmp_path / out, stop, tmp_path / name) for name, out, stop in runs])
    epochs: list[list[int]] = [[], []]
    for rank in range(2):
        whole, stopped, resumed = (json.loads((tmp_path / f"{name}.{rank}").read_text()) for name, _, _ in runs)
        assert len(whole) == 6
        assert stopped == whole[:4]
        assert resumed == whole[4:]
        for step, (labels, _) in enumerate(whole):
            epochs[step // 3] += labels
    assert [sorted(labels) for labels in epochs] == [list(range(24))] * 2


def test_a_script_is_short_and_says_how_it_is_run() -> None:
    paths = sorted((ROOT / "docs" / "examples").glob("*.py"))
    assert {path.stem for path in paths} == set(SCRIPTS)
    for path in paths:
        text = path.read_text()
        assert len(text.splitlines()) < 80
        assert f"docs/examples/{path.name} --data /data/imagenet --out Results/" in text
