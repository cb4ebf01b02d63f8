"""What a run shows on a terminal, and that it shows nothing elsewhere."""

import contextlib
import io
import re

import pytest
import torch
from torch import Tensor

from tests.helpers.training import SILENT, FixedBatches, setup_of, tiny_network
from tests.train.test_engine import SMALL
from train.engine import train_epoch
from train.ranks.distributed import World
from train.report import progress
from train.report.progress import ImageBar, doing
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
            bar.show_wait(12.5)
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
    assert "training loss 1.500, data-wait 12.5%" in text
    assert "saving last.pt ..." in text


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
    shown = re.findall(r"training loss ([0-9.]+)", terminal.getvalue())
    assert {f"{loss:.3f}" for loss in losses} <= set(shown)
