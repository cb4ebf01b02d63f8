"""When a run is saved: at its best, on signals, before it diverges or the disk is full."""

import dataclasses
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

import train.checkpoints.saver
import train.engine
import train.step
from model.weights import save_whole
from shards.common.errors import ShardfeedError
from shards.common.signals import StoppedBySignal, StopRequest
from tests.helpers.forks import PIPE, Popen
from tests.helpers.resume import assert_same, left_behind, tiny, train_until
from tests.helpers.training import SILENT, setup_of
from train.checkpoints.resume import read_checkpoint
from train.checkpoints.saver import CheckpointSaver
from train.config import Config
from train.ranks.distributed import World
from train.run import begin


def test_the_best_checkpoint_is_of_the_epoch_with_the_best_top_1(whole: Path, config: Config) -> None:
    validation = [line for line in left_behind(whole)["lines"] if line["event"] == "validation"]
    best = max(validation, key=lambda line: (line["top1"], -line["step"]))
    assert read_checkpoint(whole / "checkpoints" / "best.pt")["step"] == best["step"]


@contextmanager
def no_files_above(size: int) -> Iterator[None]:
    """What a full disk does to a file while it is written, here by the kernel's limit for this process."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("failing", [1, 2], ids=["the first", "the second"])
def test_a_full_disk_stops_the_run_and_keeps_the_checkpoint_before(
    failing: int, config: Config, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, calls = save_whole, []

    def full(content: Any, path: Path) -> None:
        calls.append(1)
        with no_files_above(4000) if len(calls) == failing else nullcontext():
            save(content, path)

    again = dataclasses.replace(config, out=tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(train.checkpoints.saver, "save_whole", full)
        with pytest.raises(ShardfeedError, match=r"File too large.*so training stops") as raised:
            train_until(again, saves={2, 4})
    kept = ["nothing was saved before", f"{tmp_path / 'checkpoints' / 'last.pt'} is kept"]
    assert kept[failing - 1] in str(raised.value)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["last.pt"][: failing - 1]
    train_until(again)
    assert_same(tmp_path, whole)


@pytest.mark.parametrize("broken", ["loss", "weight"])
def test_a_diverged_run_names_the_last_good_checkpoint_and_keeps_it(
    broken: str, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accumulate = train.step.accumulate

    def diverging(run: Any, *args: Any) -> Any:
        loss, images = accumulate(run, *args)
        if run.step == 3:
            with torch.no_grad():
                next(run.learner.network.parameters()).fill_(float("nan"))
            if broken == "loss":
                loss = loss * float("nan")
        return loss, images

    monkeypatch.setattr(train.engine, "accumulate", diverging)
    with pytest.raises(ShardfeedError, match=r"optimizer step 4.*diverged.*last good checkpoint is .*last\.pt"):
        train_until(dataclasses.replace(config, out=tmp_path), saves={3, 4})
    assert read_checkpoint(tmp_path / "checkpoints" / "last.pt")["step"] == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
@pytest.mark.parametrize("step", [2, 5])
def test_a_signal_ends_the_run_after_the_step(
    number: signal.Signals, step: int, config: Config, whole: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    accumulate, before = train.step.accumulate, signal.getsignal(number)

    def signalled(run: Any, *args: Any) -> Any:
        if run.step == step - 1:
            os.kill(os.getpid(), number)
        return accumulate(run, *args)

    again = dataclasses.replace(config, out=tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(train.engine, "accumulate", signalled)
        with pytest.raises(StoppedBySignal) as stopped:
            train_until(again)
    assert stopped.value.code == 128 + number
    assert f"stopped by {number.name} after optimizer step {step}" in capsys.readouterr().err
    assert read_checkpoint(tmp_path / "checkpoints" / "last.pt")["step"] == step
    assert signal.getsignal(number) == before
    train_until(again)
    assert_same(tmp_path, whole)


def test_a_second_ctrl_c_does_not_wait() -> None:
    with StopRequest() as request:
        signal.raise_signal(signal.SIGINT)
        assert request.number == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_ranks_look_for_signals_every_other_second(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.checkpoints.saver.max_over_ranks", lambda values, world: values)
    now = [0.0]
    monkeypatch.setattr("train.checkpoints.saver.time.monotonic", lambda: now[0])
    with StopRequest() as stop:
        monkeypatch.setattr("train.run.parallelize", lambda model, *_, **__: model)
        run = begin(tiny(3), setup_of(config, World(0, 2)), 9)
        saver = CheckpointSaver(run, None, SILENT, {}, stop)  # type: ignore[arg-type]
        asked: list[float] = []

        def is_due(now: float) -> bool:
            asked.append(now)
            return False

        monkeypatch.setattr(saver, "_is_due", is_due)
        for _ in range(20):
            now[0] += 0.5
            saver.at_step()
    assert asked == [0.5, 2.5, 4.5, 6.5, 8.5]


PROGRAM = """
import sys
from tests.helpers.resume import tiny_models
from train.__main__ import leave, main
with tiny_models():
    leave(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_the_program_stopped_at_some_moment_goes_on(config: Config, tmp_path: Path) -> None:
    whole, again = (dataclasses.replace(config, out=tmp_path / name, epochs=12) for name in ("whole", "again"))
    train_until(whole)
    sizes = "--model tiny --size 16 --batch 8 --micro-batch 4 --epochs 12 --device cpu --threads 1 --log-every 3"
    words = ["--data", again.data, "--out", again.out, *sizes.split(), "--checkpoint-minutes", 1e-6]
    command = [sys.executable, "-c", PROGRAM, *map(str, words)]
    process = Popen(command, stderr=PIPE)
    metrics = again.out / "metrics.jsonl"
    while process.poll() is None and not (metrics.exists() and len(metrics.read_text().splitlines()) >= 3):
        time.sleep(0.01)
    time.sleep(random.Random(0).uniform(0, 0.2))
    process.send_signal(signal.SIGTERM)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 143
    assert "stopped by SIGTERM after optimizer step" in error
    assert "Traceback" not in error
    assert 0 < read_checkpoint(again.out / "checkpoints" / "last.pt")["step"] < 60
    train_until(again)
    assert_same(again.out, whole.out)
