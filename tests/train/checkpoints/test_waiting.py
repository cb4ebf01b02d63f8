"""A signal while no batch comes, in start-up and in an evaluation: the run is saved and gone within seconds."""

import dataclasses
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import shards.loader
import train.engine
from shards.common.errors import ShardfeedError
from tests.helpers.forks import PIPE, Popen
from tests.helpers.ranks import on_two_ranks
from tests.helpers.resume import assert_same, tiny_models, train_until
from train.__main__ import main
from train.checkpoints.resume import read_checkpoint
from train.config import Config

PATIENCE_S = 5.0


@contextmanager
def stalled(batch: int, number: signal.Signals, training: bool = True) -> Iterator[None]:
    """The loader stalls before its batch `batch`, counted over the run from 0; a signal must end the run in time."""
    plain, given, sent = shards.loader.Loader.__iter__, [0], [0.0]

    def send() -> None:
        sent[0] = time.monotonic()
        os.kill(os.getpid(), number)

    def iterate(loader: shards.loader.Loader) -> Iterator[Any]:
        iterator = plain(loader)
        while True:
            if loader._share.drop_last == training:
                if given[0] == batch:
                    threading.Timer(0.3, send).start()
                    threading.Event().wait(60)
                given[0] += 1
            try:
                yield next(iterator)
            except StopIteration:
                return

    with tiny_models() as patch:
        patch.setattr(shards.loader.Loader, "__iter__", iterate)
        with pytest.raises(SystemExit) as stopped:
            yield
    assert time.monotonic() - sent[0] < PATIENCE_S
    assert stopped.value.code == 128 + number


def words(config: Config, out: Path) -> list[str]:
    sizes = "--model tiny --size 16 --batch-size 8 --micro-batch 4 --epochs 2 --device cpu --threads 1 --log-every 3"
    return ["--data", str(config.data), "--out", str(out), *sizes.split()]


# Between two steps; in the middle of a step, after its first micro-batch; before the second epoch's first batch.
@pytest.mark.parametrize(
    ("batch", "step", "number"), [(4, 2, signal.SIGTERM), (5, 2, signal.SIGINT), (9, 5, signal.SIGTERM)]
)
def test_a_signal_while_no_batch_comes_saves_the_steps_done(
    batch: int, step: int, number: signal.Signals, config: Config, whole: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    with stalled(batch, number):
        main(words(config, tmp_path))
    assert f"stopped by {number.name} after optimizer step {step}, saved in" in capsys.readouterr().err
    assert read_checkpoint(tmp_path / "checkpoints" / "last.pt")["step"] == step
    train_until(dataclasses.replace(config, out=tmp_path))
    assert_same(tmp_path, whole)


def test_a_signal_before_the_first_step_leaves_nothing_to_save(
    config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with stalled(0, signal.SIGTERM):
        main(words(config, tmp_path))
    assert "stopped by SIGTERM after optimizer step 0, with nothing to save" in capsys.readouterr().err
    assert not (tmp_path / "checkpoints").exists()


def test_a_signal_in_an_evaluation_is_obeyed_at_once(
    config: Config, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with stalled(1, signal.SIGTERM, training=False):
        main(words(config, tmp_path))
    assert "stopped by SIGTERM after optimizer step 5, saved in" in capsys.readouterr().err
    train_until(dataclasses.replace(config, out=tmp_path))
    assert_same(tmp_path, whole)


START = """
import sys, time
import model.names, train.engine
model.names.NAMES += ("tiny",)
train.engine.set_up = lambda *_: (print("starting", flush=True), time.sleep(60))
from train.__main__ import leave, main
leave(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 130)])
def test_a_signal_in_start_up_ends_the_process(
    number: signal.Signals, status: int, config: Config, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", START, *words(config, tmp_path)]
    with Popen(command, stdout=PIPE, stderr=PIPE) as process:
        assert process.stdout is not None
        assert "results go to" in process.stdout.readline()  # the header comes before torch is loaded
        assert process.stdout.readline() == "starting\n"
        process.send_signal(number)
        assert process.wait(PATIENCE_S) == status


@dataclasses.dataclass(frozen=True)
class StalledRank:
    """Rank 1 stalls in its third step, and a signal comes to it: it leaves, and rank 0 says what happened."""

    config: Config

    def __call__(self, rank: int) -> None:
        if rank == 0:
            with pytest.raises(ShardfeedError, match="rank 0 has lost the other ranks"):
                train.engine.train(self.config)
        else:
            with stalled(4, signal.SIGTERM):
                train.engine.train(self.config)


@pytest.mark.slow
def test_a_rank_that_stalls_leaves_alone_and_the_last_checkpoint_stays(config: Config, tmp_path: Path) -> None:
    on_two_ranks([StalledRank(dataclasses.replace(config, out=tmp_path, micro_batch=2, checkpoint_minutes=1e-6))])
    assert read_checkpoint(tmp_path / "checkpoints" / "last.pt")["step"] == 2
