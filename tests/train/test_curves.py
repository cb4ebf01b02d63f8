"""The picture of a run's curves."""

import json
from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes
from PIL import Image

from shards.common.errors import ShardfeedError, UsageError
from train.curves import METRICS, PICTURE, axis_of, draw, main

LINES: list[dict[str, Any]] = [
    {"event": "train", "epoch": 1, "step": 10, "loss": 2.0, "lr": 0.1, "images_per_s": 90.0},
    {"event": "train", "epoch": 1, "step": 20, "loss": None, "lr": 0.2, "images_per_s": 110.0},
    {"event": "damaged", "epoch": 1, "step": 20, "skipped": 1},
    {"event": "validation", "epoch": 1, "step": 20, "loss": 1.8, "top1": 30.0, "top5": 80.0},
]


@pytest.fixture
def no_curves() -> None:
    """Here they are drawn."""


def write(directory: Path, lines: list[dict[str, Any]], tail: str = "") -> Path:
    directory.mkdir(exist_ok=True)
    (directory / METRICS).write_text("".join(json.dumps(line) + "\n" for line in lines) + tail)
    return directory


def test_every_curve_shows_its_numbers_over_the_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[list[int], str]] = []
    plot = Axes.plot

    def watched(axes: Axes, steps: list[int], values: list[float], **style: Any) -> Any:
        drawn.append((steps, str(values)))
        return plot(axes, steps, values, **style)

    monkeypatch.setattr(Axes, "plot", watched)
    draw(write(tmp_path, LINES))
    assert drawn == [
        ([10, 20], "[2.0, nan]"),
        ([20], "[1.8]"),
        ([20], "[30.0]"),
        ([20], "[80.0]"),
        ([10, 20], "[0.1, 0.2]"),
        ([10, 20], "[90.0, 110.0]"),
    ]


@pytest.mark.parametrize(
    ("curves", "axis"),
    [
        ([[300.0, *range(20, 0, -1)]], (0.15, 18.85)),  # of 21 values three are early
        ([[7.0, *range(20, 0, -1)]], None),
        ([[*range(20, 0, -1), 300.0]], None),  # a late outlier is news
        ([[5.0, *range(1000, 1020)]], (1001.15, 1019.85)),
        ([[300.0, *range(20, 0, -1)], [1.0, 18.0]], (0.15, 18.85)),
        ([[float("nan"), 5.0]], None),
        ([[5.0, 1.0, 1.0]], None),
        ([[], []], None),
    ],
)
def test_an_early_outlier_does_not_squash_the_rest(curves: list[list[float]], axis: tuple[float, float] | None) -> None:
    assert axis_of(curves) == (axis and pytest.approx(axis))


def test_the_picture_says_what_is_off_its_scale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    titles: list[str] = []
    monkeypatch.setattr(Axes, "set_title", lambda _, title, **__: titles.append(title))
    losses = [900.0, 6.0, 5.0, 4.0, 3.0, 2.0]
    lines = [{"event": "train", "step": i, "loss": loss} for i, loss in enumerate(losses)]
    draw(write(tmp_path, lines))
    assert titles[:2] == ["loss (early values are off the scale)", "accuracy in percent"]


def test_the_command_draws_each_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [write(tmp_path / name, LINES) for name in ("a", "b")]
    assert main([str(run) for run in runs]) == 0
    assert capsys.readouterr().out.splitlines()[:-1] == [str(run / PICTURE) for run in runs]
    for run in runs:
        assert Image.open(run / PICTURE).width > 1000
        assert {path.name for path in run.iterdir()} == {METRICS, PICTURE}


def test_a_line_that_is_still_being_written_is_left_out(tmp_path: Path) -> None:
    assert draw(write(tmp_path, LINES, tail='{"event": "train", "ep')).exists()


def test_a_run_without_lines_yet_has_empty_panels(tmp_path: Path) -> None:
    assert draw(write(tmp_path, [])).exists()


def test_no_run_and_a_damaged_one_are_sentences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match=r"metrics\.jsonl is not a file"):
        draw(tmp_path)
    with pytest.raises(ShardfeedError, match=r"metrics\.jsonl is damaged"):
        draw(write(tmp_path, LINES, tail="{broken\n"))
    assert main([]) == 2
    assert "no runs to draw" in capsys.readouterr().err
