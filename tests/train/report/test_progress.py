"""What a run shows on a terminal, and the lines that it writes to a log."""

import contextlib
import io
import re

import pytest
import torch
from torch import Tensor

from shards.common.terminal import LogLines
from tests.helpers.training import SILENT, FixedBatches, setup_of, tiny_network
from tests.train.test_engine import SMALL
from train.engine import train_epoch
from train.ranks.distributed import World
from train.report import progress
from train.report.progress import ImageBar, doing, log_lines
from train.run import begin


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal to put in the place of stderr; figures are shown on it at once."""
    monkeypatch.setattr(progress, "_PAUSE_S", 0.0)
    return Terminal()


def show(world: World) -> None:
    """An epoch of two batches on a bar, then saving."""
    batches = [(torch.zeros(3, 3, 8, 8), torch.zeros(3))] * 2
    with ImageBar("epoch 1/2", 12, world) as bar:
        for _, labels in bar.counted(batches):
            bar.show_log(1.5, 12.5)
            bar.show_loss(torch.tensor(4.5), len(labels))
        with doing("saving last.pt", world):
            pass


def test_a_bar_counts_the_images_of_all_ranks_and_shows_the_loss(terminal: Terminal) -> None:
    with contextlib.redirect_stderr(terminal):
        show(World(size=2))
    text = terminal.getvalue()
    assert "epoch 1/2:   0%" in text  # before the first batch
    assert "6/12 [" in text
    assert " images/s" in text
    assert "images/s, loss 1.50, wait 12.5%]" in text
    assert "saving last.pt ..." in text


def test_the_bar_of_a_resumed_epoch_begins_where_the_run_was_cut_short(terminal: Terminal) -> None:
    with contextlib.redirect_stderr(terminal):
        run = begin(tiny_network(), setup_of(SMALL), micro_batches=4)
        run.enter(1)
        run.clock.count(8)
        train_epoch(run, FixedBatches([4] * 2, side=8), SILENT, 1)
    first, *_, last = re.findall(r"(\d+)/16 \[", terminal.getvalue())
    assert (first, last) == ("8", "16")


def test_behind_a_bar_in_a_hundred_columns_stays_room_for_the_bar(terminal: Terminal) -> None:
    with contextlib.redirect_stderr(terminal), ImageBar("epoch 16/16", 641_167, World(), done=640_000) as bar:
        bar._bar.ncols = 100
        bar.show_log(1.5, 12.5)
        bar.show_loss(torch.tensor(6.9), 3)
    bars = re.findall(r"\|([^|]*)\| 640000/1281167", terminal.getvalue())
    assert len(bars[-1]) >= 10


@pytest.mark.parametrize("world", [World(), World(rank=1, size=2)])
def test_nothing_is_shown_elsewhere(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    show(world)
    assert capsys.readouterr() == ("", "")


def test_another_rank_shows_nothing_on_a_terminal(terminal: Terminal) -> None:
    with contextlib.redirect_stderr(terminal):
        show(World(rank=1, size=2))
    assert terminal.getvalue() == ""


def test_each_step_shows_its_own_loss(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    losses: list[float] = []
    show_loss = ImageBar.show_loss

    def noted(bar: ImageBar, loss: Tensor, images: int) -> None:
        losses.append(float(loss) / images)
        show_loss(bar, loss, images)

    monkeypatch.setattr(ImageBar, "show_loss", noted)
    run = begin(tiny_network(), setup_of(SMALL), micro_batches=4)
    with contextlib.redirect_stderr(terminal):
        train_epoch(run, FixedBatches([4] * 4, side=8), SILENT, 1)
    assert len(losses) > 1
    shown = re.findall(r", loss ([0-9.]+)", terminal.getvalue())
    assert {f"{loss:.2f}" for loss in losses} <= set(shown)


class Clock:
    """A time that stands still until the test sets it."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_log_gets_a_line_after_a_minute_and_then_every_five() -> None:
    times = Clock()
    lines = LogLines(now=times)
    due = []
    for second in range(0, 1000, 10):
        times.now = second
        if lines.due():
            due.append(second)
    assert due == [60, 360, 660, 960]


def test_other_ranks_and_terminals_get_no_lines(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    times = Clock()
    with contextlib.redirect_stderr(terminal):
        on_terminal = LogLines(now=times)
    of_another_rank = log_lines(World(rank=1, size=2))
    times.now = 1000
    monkeypatch.setattr("time.monotonic", lambda: 1e9)
    assert not on_terminal.due()
    assert not of_another_rank.due()


def test_a_line_of_a_log(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("shards.common.terminal.FIRST_LINE_S", 0.0)
    batches = [(torch.zeros(300, 3, 1, 1), torch.zeros(300))] * 2
    with ImageBar("epoch 1/2", 600, World(), later=600) as bar:
        bar.show_step(7, 20)
        bar.show_log(1.5, 12.5)
        for _ in bar.counted(batches):
            pass
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("epoch 1/2, step 7 of 20: training loss 1.500, ")
    assert re.search(r"1.500, [0-9,.]+ images/s, data-wait 12.5%, about \d+ (s|min) left$", line)


def test_a_line_of_a_log_about_an_evaluation(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("shards.common.terminal.FIRST_LINE_S", 0.0)
    with ImageBar("test", 600, World()) as bar:
        for _ in bar.counted([(torch.zeros(300, 3, 1, 1), torch.zeros(300))] * 2):
            pass
    [line] = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"test, 300 of 600 images: [0-9,.]+ images/s, about \d+ s left", line)
