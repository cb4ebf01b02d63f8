"""The learning-rate range test: what it suggests from a curve, and what a run of it leaves."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest

from shards.common.errors import ShardfeedError
from tests.helpers.resume import tiny_models
from tests.helpers.training import write_dataset
from train.__main__ import main
from train.commands.find_lr import _interrupts_said, smooth, suggest

RATES = np.geomspace(1e-6, 10, 100).tolist()


def test_the_suggestion_is_where_the_loss_falls_fastest() -> None:
    logs = np.log(RATES)
    falling = (2 / (1 + np.exp(3 * (logs - np.log(1e-3))))).tolist()
    assert suggest(RATES, falling) == pytest.approx(1e-3, rel=0.2)


def test_what_comes_after_the_least_loss_does_not_count() -> None:
    curve = [*np.linspace(2, 1.9, 30), *np.linspace(1.89, 1.0, 30), *np.linspace(1.1, 9, 30), *np.linspace(8, 0, 10)]
    curve[95:] = [float("nan")] * 5
    assert suggest(RATES, [*curve[:90], *[9.0] * 5, *curve[95:]]) in RATES[29:60]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("curve", [np.linspace(1, 5, 100).tolist(), [float("nan")] * 100])
def test_a_loss_that_never_falls_gives_no_suggestion(curve: list[float]) -> None:
    with pytest.raises(ShardfeedError, match="fell at no learning rate"):
        suggest(RATES, curve)


@pytest.mark.parametrize("seed", range(5))
def test_noise_of_the_first_batches_is_no_slope(seed: int) -> None:
    """The smoothed loss moves fastest at its very beginning, where it is the mean of few batches."""
    noise = np.random.default_rng(seed).normal(0, 0.1, 100)
    falling = 2.5 - 0.4 / (1 + np.exp(-3 * (np.log(RATES) - np.log(1e-2))))
    assert 1e-3 < suggest(RATES, smooth((falling + noise).tolist())) < 0.3


def test_a_loss_that_only_wobbles_gives_no_suggestion() -> None:
    noise = np.random.default_rng(1).normal(2.5, 0.1, 100)
    with pytest.raises(ShardfeedError, match="by more than its noise"):
        suggest(RATES, smooth(noise.tolist()))


def test_smoothing_begins_at_the_first_loss_and_follows() -> None:
    assert smooth([3.0] * 20) == pytest.approx([3.0] * 20)
    assert smooth([1.0, 2.0])[1] == pytest.approx((0.9 * 1 + 2) / 1.9)


def test_the_command_writes_a_table_a_picture_and_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_dataset(tmp_path / "data", {"train": 64, "validation": 4})
    words = ["--data", data, "--out", tmp_path / "out", "--size", "16", "--batch-size", "16", "--device", "cpu"]
    with tiny_models():
        assert main([*map(str, words), "--model", "smooth", "--threads", "1", "--find-lr"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].endswith(
        f"a range test of the learning rate, which trains nothing to keep and writes to {tmp_path / 'out'}"
    )
    assert printed[1].startswith("data: 64 images in train")
    assert re.search(r"^model: smooth of .*; at most 100 steps of 16 images, learning rates 1e-06 to 10$", printed[2])
    assert "--max-lr" in printed[-2]
    result = json.loads(printed[-1])
    assert 1e-6 < result["max_lr"] < 10
    with (tmp_path / "out" / "find_lr.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == result["steps"]
    rates = [float(row["lr"]) for row in rows]
    assert rates == sorted(rates)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"find_lr.csv", "find_lr.png"}


def test_ctrl_c_in_the_test_says_that_nothing_was_written(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt, match="not finished, and no file was written to"), _interrupts_said(tmp_path):
        raise KeyboardInterrupt
