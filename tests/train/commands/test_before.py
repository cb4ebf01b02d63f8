"""What a command line asks for in vain is refused before torch is loaded, with the status of a mistake."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from model import MODELS
from model.names import NAMES, _registered
from shards.common.errors import UsageError
from tests import ROOT
from tests.conftest import jpeg, photo, write_split
from tests.helpers.training import write_dataset
from train.commands.before import refuse
from train.config import Config
from train.options import Sizes, Validation


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Of a data set of 12 training and 5 validation images of 16 pixels."""
    data = write_dataset(tmp_path_factory.mktemp("data"), {"train": 12, "validation": 5})
    return Config(data, size=16, out=data / "new")


def test_what_fits_is_not_refused(config: Config) -> None:
    assert refuse(config) is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": "cnnn"}, r"unknown model 'cnnn' \(did you mean cnn\?\): choose one of cnn, resnet18"),
        ({"validation": Validation(val_split="vall")}, "has no split vall: it has train, validation"),
        ({"size": 20}, "a crop of 20 pixels does not fit"),
        ({"size": 224, "check": True}, "a crop of 224 pixels does not fit"),
        ({"sizes": Sizes(val_size=24)}, "a crop of 24 pixels does not fit"),
        ({"evaluate": (Path("a.pth"), Path("b.pth"))}, "a.pth, b.pth are not files: give the .pth file"),
        ({"resume": Path("a.pt")}, "a.pt is not a file: give --resume a checkpoint, auto or never"),
        ({"resume": Path(__file__)}, "was not written by torch.save: give --resume a checkpoint, auto or never"),
        ({"out": Path(__file__)}, "is a file, not a directory"),
        ({"out": Path("/proc/here"), "check": True}, "--out /proc/here cannot be written"),
        ({"out": Path("/proc/here")}, "--out /proc/here cannot be written, because no file can be made in /proc"),
        ({"data": Path("nowhere")}, "nowhere is not a directory"),
    ],
)
def test_mistakes(changes: dict[str, object], said: str, config: Config) -> None:
    with pytest.raises(UsageError, match=said):
        refuse(dataclasses.replace(config, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("changes", [{"model": "timm:resnett18"}, {"evaluate": (Path("timm:resnett18"),)}])
def test_a_name_that_timm_does_not_have(changes: dict[str, object], config: Config) -> None:
    timm = pytest.importorskip("timm")
    assert _registered() == set(timm.list_models())
    with pytest.raises(UsageError, match=r"'timm:resnett18' \(did you mean timm:resnet18\?\): choose one of the 1,"):
        refuse(dataclasses.replace(config, **changes))  # type: ignore[arg-type]


def test_no_larger_resize_is_advised_where_training_has_none(
    tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_split(tmp_path, [jpeg(photo(16, 16))] * 4, short_side=None, name="train")
    monkeypatch.setattr("shards.common.terminal._command_runs", True)
    mine = dataclasses.replace(config, data=tmp_path, size=20, validation=Validation(val_fraction=0.5))
    with pytest.raises(UsageError, match=r"is 16: choose --size 16 or less$"):
        refuse(mine)
    with pytest.raises(UsageError, match=r"choose --val-size 16 or less, or a larger --val-resize$"):
        refuse(dataclasses.replace(mine, size=16, sizes=Sizes(val_size=20)))


def test_ranks_on_several_machines_leave_out_to_the_first(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    in_the_way = dataclasses.replace(config, out=Path(__file__))
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert refuse(in_the_way) is None
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    with pytest.raises(UsageError):
        refuse(in_the_way)


def test_it_loads_neither_torch_nor_dali(config: Config) -> None:
    words = ["--data", str(config.data), "--size", "16", "--val-split", "vall"]
    code = (
        f"import sys\nfrom train.__main__ import main\nassert main({words}) == 2\n"
        f"assert main({[*words, '--model', 'timm:resnett18']}) in (1, 2)\n"  # 1 without timm
        "print(sorted({'nvidia.dali', 'torch', 'numba'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert "has no split vall" in done.stderr


def test_the_names_are_those_of_the_networks() -> None:
    assert tuple(MODELS) == NAMES
