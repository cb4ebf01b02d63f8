"""Training's configuration: defaults of the reference recipe, what is refused, and overriding a recipe."""

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shards.common.errors import UsageError
from tests import ROOT
from train.__main__ import main, parse_config
from train.config import Config
from train.options import Distributed, Feeding, Memory, Mixing, Sizes, Update
from train.recipes import RECIPES

DATA = Path("somewhere")


def test_the_cnn_recipe_is_the_reference_recipe() -> None:
    config = parse_config(["--data", "somewhere", "--recipe", "cnn"])
    assert (config.model, config.size, config.batch, config.micro_batch) == ("cnn", 224, 64, 16)
    assert (config.max_lr, config.pct_start, config.div_factor, config.final_div_factor) == (0.01, 0.3, 10, 100)
    assert config.max_lr / config.div_factor == pytest.approx(1e-3)
    assert (config.weight_decay, config.clip) == (1e-2, 1.0)


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config(DATA).epochs = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("field", "value", "option"),
    [
        ("epochs", 0, "--epochs"),
        ("size", 7, "--size"),
        ("micro_batch", 0, "--micro-batch"),
        ("batch", 0, "--batch-size"),
        ("log_every", 0, "--log-every"),
        ("threads", 0, "--threads"),
        ("seed", -1, "--seed"),
        ("max_lr", 0.0, "--max-lr"),
        ("max_lr", float("nan"), "--max-lr"),
        ("div_factor", float("inf"), "--div-factor"),
        ("final_div_factor", -1.0, "--final-div-factor"),
        ("clip", 0.0, "--clip"),
        ("weight_decay", -0.1, "--weight-decay"),
        ("checkpoint_minutes", 0.0, "--checkpoint-minutes"),
        ("keep_every", 0, "--keep-every"),
        ("pct_start", 1.5, "--pct-start"),
        ("pct_start", float("nan"), "--pct-start"),
    ],
)
def test_a_value_out_of_range_is_refused_by_the_name_of_its_option(field: str, value: Any, option: str) -> None:
    with pytest.raises(UsageError, match=f"^{option} must be"):
        Config(DATA, **{field: value})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--offload", "--offload needs --parallel fsdp"),
        ("--parallel fsdp --precision float16", "give --precision bfloat16"),
        ("--parallel fsdp --ema 0.9", "--ema needs whole weights"),
        ("--start-size 256", "--start-size 256 is more than --size 224"),
        ("--pad 4 --crop rrc", "--pad is for --crop random, not rrc"),
        ("--pad 32 --size 64 --start-size 32", "--pad must be less than the 32 pixels of a training image, not 32"),
        ("--pad -1", "--pad must be 0 or more, not -1"),
        ("--crop rrc --scale 0.5 0.2", "--scale must be (least, most), not (0.5, 0.2)"),
        ("--grow-from 3 --grow-until 2", "--grow-until must be --grow-from"),
        ("--mixup 5", "--mixup must be from 0 to 4"),
        ("--erase 1.5", "--erase must be from 0 to 1"),
        ("--ema 1", "--ema must be from 0 to below 1"),
        ("--label-smoothing 2", "--label-smoothing must be from 0 to 1"),
        ("--bad-losses 0", "--bad-losses must be 1 or more"),
        ("--period 1", "--period must be 2 or more"),
        ("--device cpu --precision tf32", "tf32 needs a GPU"),
        ("--device cpu --precision float16", "float16 needs a GPU"),
        ("--check --find-lr", "exclude each other"),
        ("--check --evaluate weights.pth", "exclude each other"),
    ],
)
def test_options_that_do_not_fit_are_refused(words: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", "somewhere", *words.split()]) == 2
    assert message in capsys.readouterr().err


def test_options_override_the_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RECIPES, "other", lambda data: Config(data, recipe="other", epochs=90, clip=2.0))
    config = parse_config(["--data", "somewhere", "--recipe=other", "--clip", "0.5", "--evaluate", "weights.pth"])
    assert config == Config("somewhere", recipe="other", epochs=90, clip=0.5, evaluate=(Path("weights.pth"),))


@pytest.mark.parametrize(
    ("words", "resume"),
    [([], "auto"), (["--resume", "never"], "never"), (["--resume", "some/last.pt"], Path("some/last.pt"))],
)
def test_resume_is_a_word_or_a_file(words: list[str], resume: str | Path) -> None:
    assert parse_config(["--data", "somewhere", *words]).resume == resume


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--data"),
        (["--data", "x", "--recipe", "other"], "unknown recipe 'other'"),
        (["--data", "x", "--epochs", "0"], "--epochs must be 1 or more, not 0"),
        (["--data", "x", "--precision", "float8"], "float8"),
        (["--data", "x", "--bogus", "1"], "--bogus"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_status_2(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Config)])
def test_a_value_of_a_wrong_type_is_refused_by_the_name_of_its_field(field: str) -> None:
    for value in (b"x", {}, object(), np.zeros((9, 9)), (1, 2)):
        with pytest.raises(UsageError, match=f"^{field} must be [^\n]+$"):
            Config(**dict[str, Any]({"data": DATA, field: value}))


@pytest.mark.parametrize("group", [Distributed, Feeding, Memory, Mixing, Sizes, Update])
def test_a_value_of_a_wrong_type_in_a_group_is_refused_by_the_name_of_its_field(group: type[Any]) -> None:
    for field in dataclasses.fields(group):
        with pytest.raises(UsageError, match=f"^{field.name} must be"):
            group(**{field.name: b"x"})


def test_numbers_of_numpy_and_paths_as_text_are_taken() -> None:
    config = Config(DATA, epochs=np.int64(3), max_lr=np.float32(0.5), out="runs", evaluate=["a.pth"])  # type: ignore[arg-type]
    assert config == Config(DATA, epochs=3, max_lr=0.5, out=Path("runs"), evaluate=(Path("a.pth"),))
    assert type(config.epochs) is int


def test_importing_the_trainer_does_not_load_dali() -> None:
    code = "import sys, train.commands.check, train.engine; sys.exit('nvidia.dali' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_importing_the_command_line_does_not_load_torch() -> None:
    code = "import sys, train.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
