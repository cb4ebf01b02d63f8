"""An option that nothing reads is refused where it was typed, and not where a recipe left its value behind."""

import dataclasses
from pathlib import Path

import pytest

from shards.common.errors import UsageError
from tests.helpers.training import write_dataset
from train.__main__ import given, main, parse_config
from train.commands.before import refuse
from train.commands.unused import refuse_unused
from train.config import Config


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--scale 0.5 1", "--scale does nothing without --crop rrc: add that, or leave it out"),
        ("--scale 0.5 1 --ratio 1 1", "--scale and --ratio do nothing without --crop rrc: add that, or leave them out"),
        ("--window 4", "--window does nothing without --order blocks"),
        ("--momentum 0.8", "--momentum does nothing without --optimizer sgd"),
        ("--ema-every 4", "--ema-every does nothing without --ema"),
        ("--ema-warm-up", "--ema-warm-up does nothing without --ema"),
        ("--warm-up 10", "--warm-up does nothing without --parallel local-sgd"),
        ("--period 4 --parallel fsdp", "--period does nothing without --parallel local-sgd"),
        ("--grow-from 2 --grow-until 4", "--grow-from and --grow-until do nothing without --start-size"),
        ("--start-size 160", "--start-size does nothing without --grow-until"),
    ],
)
def test_an_option_that_nothing_reads_is_refused(words: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", "somewhere", *words.split()]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        "--crop rrc --scale 0.5 1",
        "--order blocks --window 4",
        "--optimizer sgd --momentum 0.8",
        "--ema 0.9 --ema-every 4 --ema-warm-up",
        "--parallel local-sgd --period 4",
        "--start-size 160 --grow-until 4",
        # At their defaults, as of a script that writes all options out.
        "--window 16 --ema-every 1 --no-ema-warm-up --grow-until 0",
        # What the recipe has said of an option that the command line turns off.
        "--recipe efficientnet_b0 --ema 0",
        "--recipe vit_s16_90 --crop random",
        "--recipe rn50_16 --start-size None --optimizer adamw",
    ],
)
def test_what_is_read_usual_or_the_recipe_s_is_not(words: str) -> None:
    every = ["--data", "somewhere", *words.split()]
    refuse_unused(parse_config(every), given(every))


def test_options_of_the_cache_are_refused_for_shards_on_this_machine(tmp_path: Path) -> None:
    data = write_dataset(tmp_path, {"train": 4, "validation": 2})
    config = Config(data, size=16, out=tmp_path / "new")
    feeding = dataclasses.replace(config.feeding, cache_size="5GB", cache_dir=tmp_path)
    config = dataclasses.replace(config, feeding=feeding)
    with pytest.raises(UsageError, match=r"^--cache-dir and --cache-size do nothing for shards on this machine: leave"):
        refuse(config, {"cache_dir", "cache_size"})
    assert refuse(config, {"size"}) is None
